"""Lists, curves and files of jobs."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine

from api.jobs import service
from store.artifacts import attempt_prefix
from store.database import server_now, transaction
from store.events import NewEvent
from store.jobs import Claim
from store.leases import NewArtifact, add_artifacts
from store.models import ArtifactKind
from store.objects import ObjectStore

NO_JOB = "019ab2c4-7f1e-7c3a-9d52-0b6a4be1d9aa"


def test_pages_follow_each_other_while_jobs_are_added(http: httpx.Client, jobs: Any) -> None:
    made = [jobs.submit() for _ in range(5)]
    first = http.get("/jobs", params={"limit": 2}).json()
    jobs.submit()
    second = http.get("/jobs", params={"limit": 2, "after": first["next"]}).json()
    third = http.get("/jobs", params={"limit": 2, "after": second["next"]}).json()
    listed = [job["id"] for page in (first, second, third) for job in page["items"]]
    assert listed == made[::-1]
    assert [page["has_more"] for page in (first, second, third)] == [True, True, False]
    assert third["next"] is None


def test_every_job_is_listed_once_while_others_are_submitted_and_deleted(
    http: httpx.Client, jobs: Any
) -> None:
    made = [jobs.submit() for _ in range(12)]
    stop = threading.Event()

    def submit_and_delete() -> None:
        while not stop.is_set():
            http.delete(f"/jobs/{jobs.submit()}")
            jobs.submit()

    with ThreadPoolExecutor(2) as threads:
        writers = [threads.submit(submit_and_delete) for _ in range(2)]
        for limit in (2, 5):
            listed: list[str] = []
            page: dict[str, Any] = {"next": None, "has_more": True}
            while page["has_more"]:
                cursor = {} if page["next"] is None else {"after": page["next"]}
                page = http.get("/jobs", params={"limit": limit, **cursor}).json()
                listed += [job["id"] for job in page["items"]]
            assert listed == sorted(set(listed), reverse=True)
            assert [job_id for job_id in listed if job_id in made] == made[::-1]
        stop.set()
        for writer in writers:
            writer.result()


def test_lists_are_filtered(http: httpx.Client, jobs: Any) -> None:
    queued, running = jobs.submit(), jobs.submit(teacher="another")
    jobs.claim(running)

    def listed(**filters: str) -> list[str]:
        return [job["id"] for job in http.get("/jobs", params=filters).json()["items"]]

    assert listed(status="queued") == [queued]
    assert listed(status="running") == [running]
    assert listed(teacher="another") == [running]
    assert listed(teacher="another", status="queued") == []


@pytest.mark.parametrize("cursor", ["x", "\x00", NO_JOB + "0", "é"])
def test_a_cursor_that_is_not_ours_is_refused(offline: httpx.Client, cursor: str) -> None:
    answer = offline.get("/jobs", params={"after": cursor})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == "after"


def test_a_job_that_does_not_exist_is_not_found(http: httpx.Client) -> None:
    for part in ("", "/events", "/metrics", "/samples", "/artifacts", "/checkpoints", "/logs", "/weights"):
        assert http.get(f"/jobs/{NO_JOB}{part}").status_code == 404, part
    assert http.post(f"/jobs/{NO_JOB}/cancel").status_code == 404
    streamed = http.get(f"/jobs/{NO_JOB}/events", headers={"Accept": "text/event-stream"})
    assert streamed.status_code == 404


def test_cancelling(http: httpx.Client, jobs: Any) -> None:
    queued = jobs.submit()
    cancelled = http.post(f"/jobs/{queued}/cancel").json()
    assert (cancelled["status"], cancelled["reason"]) == ("cancelled", "cancelled_by_user")
    again = http.post(f"/jobs/{queued}/cancel")
    assert again.status_code == 409
    assert again.json()["type"] == "urn:condenser:problem:job_finished"

    running = jobs.submit()
    jobs.claim(running)
    for _ in range(2):
        asked = http.post(f"/jobs/{running}/cancel").json()
        assert (asked["status"], asked["cancel_requested"]) == ("running", True)


def test_curves_as_json_and_csv(http: httpx.Client, jobs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    claim = jobs.claim(jobs.submit())
    points = [
        NewEvent("metrics", {"step": step, "values": {"loss": 1 / step, "rate": 0.5}}) for step in (1, 2, 3)
    ]
    jobs.report(claim, points, position=1)
    url = f"/jobs/{claim.job_id}/metrics"
    series = {curve["name"]: curve["points"] for curve in http.get(url).json()["items"]}
    assert series["loss"] == [{"step": step, "value": 1 / step} for step in (1, 2, 3)]
    assert set(series) == {"loss", "rate"}

    [loss] = http.get(url, params={"name": "loss", "after_step": 1, "limit": 1}).json()["items"]
    assert loss == {"name": "loss", "points": [{"step": 2, "value": 0.5}], "has_more": True}

    table = http.get(url, params={"name": "loss"}, headers={"Accept": "text/csv"})
    assert table.headers["content-type"].startswith("text/csv")
    assert table.text.splitlines() == ["name,step,value", "loss,1,1.0", "loss,2,0.5", f"loss,3,{1 / 3!r}"]

    monkeypatch.setattr(service, "POINTS_AT_ONCE", 2)  # so that every curve takes two pages
    csv = {"Accept": "text/csv"}
    rates = [f"rate,{step},0.5" for step in (1, 2, 3)]
    assert http.get(url, headers=csv).text.splitlines() == [*table.text.splitlines(), *rates]
    cut = http.get(url, params={"limit": 1, "after_step": 1}, headers=csv)
    assert cut.text.splitlines() == ["name,step,value", "loss,2,0.5", "rate,2,0.5"]
    assert http.get(f"/jobs/{NO_JOB}/metrics", headers=csv).status_code == 404


def upload(
    engine: Engine, object_store: ObjectStore, claim: Claim, folder: Path, files: dict[str, ArtifactKind]
) -> None:
    artifacts: list[NewArtifact] = []
    for path, kind in files.items():
        source = folder / "file"
        source.write_text(path)
        stored = object_store.upload_file(source, attempt_prefix(claim.job_id, claim.attempt) + path)
        artifacts.append(
            NewArtifact(
                path=path,
                kind=kind,
                step=1_000 if "1000" in path else None,
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


def test_files_are_listed_by_kind_and_can_be_fetched(
    http: httpx.Client, jobs: Any, engine: Engine, object_store: ObjectStore, tmp_path: Path
) -> None:
    claim = jobs.claim(jobs.submit())
    files: dict[str, ArtifactKind] = {
        "checkpoints/step-00001000/a.safetensors": "checkpoint_file",
        "checkpoints/step-00001000/manifest.json": "checkpoint_file",
        "samples/step-00001000.png": "sample",
        "student/unet/config.json": "student_file",
        "student.zip": "student_archive",
        "trainer.log": "log",
    }
    upload(engine, object_store, claim, tmp_path, files)
    parts = {
        part: http.get(f"/jobs/{claim.job_id}/{part}").json()["items"]
        for part in ("artifacts", "samples", "logs", "checkpoints")
    }
    assert {entry["path"]: entry["kind"] for entry in parts["artifacts"]} == files
    assert [entry["path"] for entry in parts["samples"]] == ["samples/step-00001000.png"]
    assert [entry["path"] for entry in parts["logs"]] == ["trainer.log"]
    [checkpoint] = parts["checkpoints"]
    assert (checkpoint["attempt"], checkpoint["step"]) == (1, 1_000)
    assert len(checkpoint["files"]) == 2
    for entry in parts["artifacts"]:
        assert httpx.get(entry["url"], trust_env=False).text == entry["path"]

    early = http.get(f"/jobs/{claim.job_id}/weights")
    assert early.status_code == 409
    assert early.json()["type"] == "urn:condenser:problem:weights_not_ready"
    jobs.succeed(claim)
    answer = http.get(f"/jobs/{claim.job_id}/weights")
    assert answer.status_code == 307
    fetched = httpx.get(answer.headers["location"], trust_env=False)
    assert fetched.text == "student.zip"
    assert claim.job_id in fetched.headers["content-disposition"]
    assert http.get(f"/jobs/{claim.job_id}").json()["result"] == {"frechet_distance": 1.5}


def test_a_job_that_ended_without_weights_has_none(http: httpx.Client, jobs: Any) -> None:
    job_id = jobs.submit()
    http.post(f"/jobs/{job_id}/cancel")
    assert http.get(f"/jobs/{job_id}/weights").status_code == 404


def test_teachers_name_the_students_that_fit(offline: httpx.Client) -> None:
    teachers = {teacher["id"]: teacher for teacher in offline.get("/teachers").json()["items"]}
    fitting = [option["student"] for option in teachers["tiny"]["students"]]
    assert fitting == ["b-base", "b-small", "b-tiny", "c-micro"]
    assert teachers["tiny"]["parameters"] == 16
