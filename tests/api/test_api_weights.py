"""Students as downloads: the form that is asked for, in ranges, with its digest."""

import hashlib
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine

from store.artifacts import attempt_prefix
from store.database import server_now, transaction
from store.jobs import Claim, release_to_queue, resume_job
from store.leases import NewArtifact, add_artifacts
from store.models import ArtifactKind
from store.objects import ObjectStore

PROBLEM = "urn:condenser:problem:"
FILES: dict[str, ArtifactKind] = {
    "student.zip": "student_archive",
    "student/unet/diffusion_pytorch_model.safetensors": "student_file",
    "student/unet.fp16.safetensors": "student_file",
}
FORMS = dict(zip(("archive", "unet", "single-file"), FILES, strict=True))


def content_of(path: str) -> bytes:
    return path.encode() * 20_000


@pytest.fixture
def leave(engine: Engine, object_store: ObjectStore, tmp_path: Path) -> Any:
    """Leaves files of an attempt as a worker does."""

    def leave(claim: Claim, paths: list[str]) -> None:
        artifacts: list[NewArtifact] = []
        for path in paths:
            source = tmp_path / "file"
            source.write_bytes(content_of(path))
            stored = object_store.upload_file(source, attempt_prefix(claim.job_id, claim.attempt) + path)
            artifacts.append(
                NewArtifact(
                    path=path,
                    kind=FILES[path],
                    step=None,
                    key=stored.key,
                    size=stored.size,
                    sha256=stored.sha256,
                )
            )
        with transaction(engine) as session:
            add_artifacts(
                session,
                job_id=claim.job_id,
                lease_token=claim.lease_token,
                artifacts=artifacts,
                event=None,
                now=server_now(session),
            )

    return leave


def test_each_form_is_a_link_with_digest_that_serves_ranges(
    http: httpx.Client, jobs: Any, leave: Any
) -> None:
    claim = jobs.claim(jobs.submit())
    leave(claim, list(FILES))
    jobs.succeed(claim)
    for form, path in FORMS.items():
        content = content_of(path)
        answer = http.get(f"/jobs/{claim.job_id}/weights", params={"format": form})
        assert answer.status_code == 307
        assert answer.headers["x-content-sha256"] == hashlib.sha256(content).hexdigest()
        assert answer.headers["x-content-size"] == str(len(content))
        link = answer.headers["location"]
        whole = httpx.get(link, trust_env=False)
        assert whole.content == content
        assert whole.headers["x-amz-meta-sha256"] == answer.headers["x-content-sha256"]
        assert Path(path).suffix in whole.headers["content-disposition"]
        part = httpx.get(link, headers={"Range": "bytes=1000-1999"}, trust_env=False)
        assert (part.status_code, part.content) == (206, content[1000:2000])
        assert part.headers["content-range"] == f"bytes 1000-1999/{len(content)}"
        rest = httpx.get(link, headers={"Range": f"bytes={len(content) - 5}-"}, trust_env=False)
        assert rest.content == content[-5:]
        beyond = httpx.get(link, headers={"Range": f"bytes={len(content)}-"}, trust_env=False)
        assert beyond.status_code == 416
        forged = link.replace("X-Amz-Signature=", "X-Amz-Signature=0")
        assert httpx.get(forged, trust_env=False).status_code == 403
    assert http.get(f"/jobs/{claim.job_id}/weights").headers["x-content-size"] == str(
        len(content_of("student.zip"))
    )


def test_a_form_that_the_export_left_out_is_explained(http: httpx.Client, jobs: Any, leave: Any) -> None:
    claim = jobs.claim(jobs.submit(export={"single_file": False}))
    leave(claim, ["student.zip"])
    jobs.succeed(claim)
    for form, hint in (("single-file", "export.single_file is false"), ("unet", "not one file")):
        refused = http.get(f"/jobs/{claim.job_id}/weights", params={"format": form})
        assert (refused.status_code, refused.json()["type"]) == (404, PROBLEM + "weights_left_out")
        assert hint in refused.json()["detail"]
        assert refused.json()["errors"][0] == {
            "field": "format",
            "message": refused.json()["detail"],
            "allowed": ["archive"],
        }


def test_an_unknown_form_is_refused_with_the_known_ones(offline: httpx.Client) -> None:
    refused = offline.get("/jobs/019ab2c4-7f1e-7c3a-9d52-0b6a4be1d9aa/weights", params={"format": "pickle"})
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["field"] == "format"
    assert refused.json()["errors"][0]["allowed"] == list(FORMS)


def test_the_weights_are_those_of_the_attempt_whose_archive_is_given(
    http: httpx.Client, jobs: Any, leave: Any, engine: Engine
) -> None:
    """What an attempt that was given up had uploaded is not mixed with its successor's."""
    job_id = jobs.submit()
    first = jobs.claim(job_id)
    leave(first, ["student/unet.fp16.safetensors"])
    http.post(f"/jobs/{job_id}/pause")
    with transaction(engine) as session:
        now = server_now(session)
        release_to_queue(session, job_id=job_id, lease_token=first.lease_token, now=now)
        resume_job(session, job_id=job_id, now=now)
    second = jobs.claim(job_id)
    leave(second, ["student.zip"])
    jobs.succeed(second)
    refused = http.get(f"/jobs/{job_id}/weights", params={"format": "single-file"})
    assert refused.status_code == 404
