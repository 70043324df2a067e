"""Files that the API passes on itself, where clients cannot reach the object store."""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from sqlalchemy import Engine

from client.condenser import Condenser
from store.artifacts import attempt_prefix
from store.database import server_now, transaction
from store.leases import NewArtifact, add_artifacts
from store.objects import PIECE_BYTES, ObjectStore
from store.settings import Settings

PROBLEM = "urn:condenser:problem:"
CONTENT = bytes(range(256)) * (2 * PIECE_BYTES // 256) + b"the end"


@pytest.fixture
def relay(api_settings: Settings, serve: Callable[[Settings], Any]) -> Iterator[httpx.Client]:
    """An API that passes files on."""
    with serve(api_settings.model_copy(update={"files_through_api": True})) as client:
        yield client


@pytest.fixture
def finished(engine: Engine, object_store: ObjectStore, jobs: Any, tmp_path: Path) -> str:
    """A job whose student is larger than one piece."""
    claim = jobs.claim(jobs.submit())
    source = tmp_path / "student.zip"
    source.write_bytes(CONTENT)
    key = attempt_prefix(claim.job_id, claim.attempt) + "student.zip"
    stored = object_store.upload_file(source, key)
    archive = NewArtifact(
        path="student.zip",
        kind="student_archive",
        step=None,
        key=key,
        size=stored.size,
        sha256=stored.sha256,
    )
    with transaction(engine) as session:
        add_artifacts(
            session,
            job_id=claim.job_id,
            lease_token=claim.lease_token,
            artifacts=[archive],
            event=None,
            now=server_now(session),
        )
    jobs.succeed(claim)
    job_id: str = claim.job_id
    return job_id


def test_weights_come_from_the_api_itself_whole_and_in_ranges(relay: httpx.Client, finished: str) -> None:
    answer = relay.get(f"/jobs/{finished}/weights")
    link = answer.headers["location"]
    assert link.startswith(str(relay.base_url))
    with httpx.Client(trust_env=False) as stranger:
        whole = stranger.get(link)
        assert (whole.status_code, whole.content) == (200, CONTENT)
        assert hashlib.sha256(whole.content).hexdigest() == answer.headers["x-content-sha256"]
        assert f"{finished}-student.zip" in whole.headers["content-disposition"]
        part = stranger.get(link, headers={"Range": "bytes=1000-1999"})
        assert (part.status_code, part.content) == (206, CONTENT[1000:2000])
        assert part.headers["content-range"] == f"bytes 1000-1999/{len(CONTENT)}"
        rest = stranger.get(link, headers={"Range": f"bytes={len(CONTENT) - 7}-"})
        assert rest.content == b"the end"
        several = stranger.get(link, headers={"Range": "bytes=0-1,5-6"})
        assert (several.status_code, several.content) == (200, CONTENT)
        beyond = stranger.get(link, headers={"Range": f"bytes={len(CONTENT)}-"})
        assert (beyond.status_code, beyond.json()["type"]) == (416, PROBLEM + "unsatisfiable_range")
    [listed] = relay.get(f"/jobs/{finished}/artifacts").json()["items"]
    assert httpx.get(listed["url"], trust_env=False).content == CONTENT


def test_a_link_that_was_changed_or_is_over_opens_nothing(
    relay: httpx.Client, finished: str, object_store: ObjectStore, tmp_path: Path
) -> None:
    link = relay.get(f"/jobs/{finished}/weights").headers["location"]
    (tmp_path / "secret").write_bytes(b"another tenant's")
    object_store.upload_file(tmp_path / "secret", "jobs/other/secret")
    path, query = urlsplit(link).path, dict(httpx.QueryParams(urlsplit(link).query))
    changes = [
        {"key": "jobs/other/secret"},
        {"filename": "other.html"},
        {"expires": str(int(query["expires"]) + 1)},
        {"expires": "1"},
        {"signature": "0" * 64},
    ]
    for change in changes:
        refused = relay.get(path, params=query | change)
        assert (refused.status_code, refused.json()["type"]) == (403, PROBLEM + "bad_file_link"), change
    assert relay.get(path, params=query).status_code == 200


def test_no_link_is_opened_where_files_do_not_go_through_the_api(
    relay: httpx.Client, http: httpx.Client, finished: str
) -> None:
    link = urlsplit(relay.get(f"/jobs/{finished}/weights").headers["location"])
    assert http.get(f"{link.path}?{link.query}").status_code == 403
    assert "X-Amz-Signature" in http.get(f"/jobs/{finished}/weights").headers["location"]


def test_a_file_that_is_gone_is_not_found(
    relay: httpx.Client, finished: str, object_store: ObjectStore
) -> None:
    link = relay.get(f"/jobs/{finished}/weights").headers["location"]
    object_store.delete_prefix(f"jobs/{finished}/")
    assert relay.get(link).status_code == 404


def test_the_python_client_takes_a_file_from_there(
    relay: httpx.Client, finished: str, tmp_path: Path
) -> None:
    key = relay.headers["authorization"].removeprefix("Bearer ")
    with Condenser(str(relay.base_url), api_key=key) as condenser:
        [file] = condenser.jobs.get(finished).artifacts()
    assert httpx.get(file.url, trust_env=False).content == CONTENT
