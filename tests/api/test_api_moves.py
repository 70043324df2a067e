"""What can be done to a job over HTTP: pause, resume, retry, clone and delete it; and its options."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine

from store import jobs as store_jobs
from store.database import server_now, transaction
from store.endings import EXPLANATIONS
from store.events import NewEvent
from store.leases import heartbeat
from store.queue import count_hints
from store.settings import Settings

SPEC = {"teacher": "tiny", "student": {"width": 0.5}, "captions": {"kind": "inline", "texts": ["cat", "dog"]}}
SSE = {"Accept": "text/event-stream"}
NO_JOB = "019ab2c4-7f1e-7c3a-9d52-0b6a4be1d9aa"
PROBLEM = "urn:condenser:problem:"


def release(engine: Engine, claim: Any) -> str:
    """Give a job back as its worker does when it has stopped the trainer."""
    with transaction(engine) as session:
        return store_jobs.release_to_queue(
            session, job_id=claim.job_id, lease_token=claim.lease_token, now=server_now(session)
        )


def test_pausing_and_resuming(
    http: httpx.Client, jobs: Any, engine: Engine, api_settings: Settings, eventually: Callable[..., Any]
) -> None:
    job_id = jobs.submit()
    for _ in range(2):
        assert http.post(f"/jobs/{job_id}/pause").json()["status"] == "paused"
    assert [job["id"] for job in http.get("/jobs", params={"status": "paused"}).json()["items"]] == [job_id]
    resumed = http.post(f"/jobs/{job_id}/resume").json()
    assert resumed["status"] == "queued"
    last = resumed["transitions"][-1]
    assert (last["reason"], last["message"]) == ("resumed_by_user", EXPLANATIONS["resumed_by_user"].sentence)
    eventually(lambda: count_hints(api_settings, "cpu") == 1)

    claim = jobs.claim(job_id)
    asked = http.post(f"/jobs/{job_id}/pause").json()
    assert (asked["status"], asked["pause_requested"]) == ("running", True)
    assert release(engine, claim) == "paused"
    paused = http.get(f"/jobs/{job_id}").json()
    assert (paused["status"], paused["pause_requested"], paused["finished_at"]) == ("paused", False, None)
    assert http.post(f"/jobs/{job_id}/cancel").json()["status"] == "cancelled"
    refused = http.post(f"/jobs/{job_id}/resume")
    assert (refused.status_code, refused.json()["type"]) == (409, PROBLEM + "job_finished")


def test_a_training_is_asked_for_a_checkpoint_and_for_pictures(
    http: httpx.Client, jobs: Any, engine: Engine
) -> None:
    job_id = jobs.submit()

    def refused(words: str) -> None:
        for move in ("save-now", "sample-now"):
            answer = http.post(f"/jobs/{job_id}/{move}")
            assert (answer.status_code, answer.json()["type"]) == (409, PROBLEM + "job_not_training")
            assert words in answer.json()["detail"]

    def beat(*handed_on: Any) -> set[str]:
        with transaction(engine) as session:
            lease: Any = {"job_id": job_id, "lease_token": claim.lease_token, "now": server_now(session)}
            return set(heartbeat(session, **lease, lease_seconds=60, handed_on=handed_on).wishes)

    refused("is queued")
    claim = jobs.claim(job_id)
    refused("yet to begin")
    jobs.report(claim, [NewEvent("phase", {"phase": "evaluation"})], position=1)
    refused("at its phase evaluation")
    jobs.report(claim, [NewEvent("phase", {"phase": "training"})], position=2)
    saved = http.post(f"/jobs/{job_id}/save-now").json()
    assert (saved["save_requested"], saved["sample_requested"]) == (True, False)
    assert http.post(f"/jobs/{job_id}/save-now").json()["version"] == saved["version"]
    assert beat() == {"checkpoint"}
    assert http.post(f"/jobs/{job_id}/sample-now").json()["sample_requested"] is True
    assert beat("checkpoint") == {"sample"}, "a wish is told until it was handed on"
    assert beat() == {"sample"}
    assert http.get(f"/jobs/{job_id}").json()["save_requested"] is False
    http.post(f"/jobs/{job_id}/pause")
    refused("asked to stop")
    release(engine, claim)
    assert http.get(f"/jobs/{job_id}").json()["sample_requested"] is False
    told = [event["type"] for event in http.get(f"/jobs/{job_id}/events").json()["items"]]
    assert [kind for kind in told if kind.startswith("sa")] == ["save_requested", "sample_requested"]


def test_a_job_being_cancelled_cannot_be_paused(http: httpx.Client, jobs: Any) -> None:
    job_id = jobs.submit()
    jobs.claim(job_id)
    http.post(f"/jobs/{job_id}/cancel")
    refused = http.post(f"/jobs/{job_id}/pause")
    assert (refused.status_code, refused.json()["type"]) == (409, PROBLEM + "cancel_requested")


def test_a_retry_goes_on_in_the_same_history(http: httpx.Client, jobs: Any) -> None:
    job_id = jobs.submit()
    early = http.post(f"/jobs/{job_id}/retry")
    assert (early.status_code, early.json()["type"]) == (409, PROBLEM + "job_not_ended")
    ended = http.post(f"/jobs/{job_id}/cancel").json()
    assert (ended["reason"], ended["hint"]) == ("cancelled_by_user", EXPLANATIONS["cancelled_by_user"].hint)
    retried = http.post(f"/jobs/{job_id}/retry", params={"from_scratch": True}).json()
    assert (retried["status"], retried["reason"], retried["finished_at"]) == ("queued", None, None)

    # A stream from the beginning does not take the first end for the last.
    with http.stream("GET", f"/jobs/{job_id}/events", headers=SSE) as stream:
        told = (line for line in stream.iter_lines() if line == "event: status")
        assert len([next(told) for _ in range(3)]) == 3
        jobs.succeed(jobs.claim(job_id))
        assert len(list(told)) == 2
    refused = http.post(f"/jobs/{job_id}/retry")
    assert (refused.status_code, refused.json()["type"]) == (409, PROBLEM + "job_finished")
    assert http.get(f"/jobs/{job_id}/events", headers=SSE | {"Last-Event-ID": "5"}).status_code == 204


def test_a_clone_differs_in_what_the_request_changes_and_no_more(http: httpx.Client) -> None:
    options = {"priority": 3, "max_runtime_s": 60, "not_before": "2020-01-01T00:00:00Z"}
    first = http.post("/jobs", json=SPEC | {"training": {"steps": 10}, "options": options}).json()
    same = http.post(f"/jobs/{first['id']}/clone")
    assert same.status_code == 201
    assert same.headers["location"] == f"/jobs/{same.json()['id']}"
    assert same.json()["id"] != first["id"]
    for name in ("spec", "priority", "max_runtime_s", "status", "not_before"):
        assert same.json()[name] == first[name], name

    changes = {
        "student": "b-tiny",
        "training": {"learning_rate": 1e-3},
        "captions": {"kind": "bundled"},
        "options": {"priority": -1},
    }
    other = http.post(f"/jobs/{first['id']}/clone", json=changes).json()
    assert other["spec"]["student"] == "b-tiny"
    assert other["spec"]["training"] == first["spec"]["training"] | {"learning_rate": 1e-3}
    assert other["spec"]["captions"] == {"kind": "bundled", "name": "emoji-64"}
    assert other["spec"]["method"] == first["spec"]["method"]
    assert (other["priority"], other["max_runtime_s"]) == (-1, 60)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"training": {"steps": 0}}, "training.steps"),
        ({"training": 3}, "training"),
        ({"training": {"stepz": 1}}, "training.stepz"),
        ({"teacher": "nobody"}, "teacher"),
        ({"captions": {"kind": "inline", "texts": []}}, "captions.texts"),
        ({"options": {"urgency": 1}}, "options.urgency"),
        ({"nonsense": 1}, "nonsense"),
    ],
)
def test_a_bad_change_is_named_by_its_field(
    http: httpx.Client, jobs: Any, changes: dict[str, Any], field: str
) -> None:
    refused = http.post(f"/jobs/{jobs.submit()}/clone", json=changes)
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["field"] == field
    assert refused.headers["content-type"] == "application/problem+json"


def test_a_repeated_clone_makes_one_job(http: httpx.Client, jobs: Any) -> None:
    job_id, headers = jobs.submit(), {"Idempotency-Key": "k"}
    first = http.post(f"/jobs/{job_id}/clone", headers=headers)
    again = http.post(f"/jobs/{job_id}/clone", headers=headers)
    assert (again.status_code, again.content) == (first.status_code, first.content)
    other = http.post(f"/jobs/{job_id}/clone", json={"seed": 8}, headers=headers)
    assert other.json()["type"] == PROBLEM + "idempotency_key_reused"


def test_deleting(http: httpx.Client, jobs: Any) -> None:
    job_id = jobs.submit()
    claim = jobs.claim(job_id)
    refused = http.delete(f"/jobs/{job_id}")
    assert (refused.status_code, refused.json()["type"]) == (409, PROBLEM + "job_running")
    jobs.succeed(claim)
    for _ in range(2):
        deleted = http.delete(f"/jobs/{job_id}")
        assert (deleted.status_code, deleted.content) == (204, b"")
    assert http.get(f"/jobs/{job_id}").status_code == 404
    assert http.delete(f"/jobs/{NO_JOB}").status_code == 404


def test_watchers_of_a_deleted_job_are_told(http: httpx.Client, jobs: Any) -> None:
    job_id = jobs.submit()
    with http.stream("GET", f"/jobs/{job_id}/events", headers=SSE) as stream:
        lines = stream.iter_lines()
        assert "event: status" in (next(lines) for _ in range(5))
        assert http.delete(f"/jobs/{job_id}").status_code == 204
        assert "event: status" not in list(lines)
    assert http.get(f"/jobs/{job_id}/events", headers=SSE).status_code == 404


@pytest.mark.parametrize("move", ["pause", "resume", "retry", "clone", "cancel"])
def test_a_job_that_does_not_exist_cannot_be_moved(http: httpx.Client, move: str) -> None:
    for job_id in (NO_JOB, "nothing"):
        assert http.post(f"/jobs/{job_id}/{move}").status_code == 404


def test_options_are_kept_beside_the_specification(http: httpx.Client) -> None:
    start = datetime.now(UTC) + timedelta(days=1)
    options = {"priority": 7, "max_runtime_s": 90.5, "not_before": start.isoformat()}
    job = http.post("/jobs", json=SPEC | {"options": options}).json()
    assert (job["priority"], job["max_runtime_s"]) == (7, 90.5)
    assert datetime.fromisoformat(job["not_before"]) == start
    assert "options" not in job["spec"]
    past = http.post("/jobs", json=SPEC | {"options": {"not_before": "0001-01-01T00:00:00+14:00"}}).json()
    assert past["not_before"] is None


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"priority": 101}, "options.priority"),
        ({"priority": 1.5}, "options.priority"),
        ({"max_runtime_s": 0}, "options.max_runtime_s"),
        ({"max_runtime_s": 1e300}, "options.max_runtime_s"),
        ({"not_before": "2026-01-01T00:00:00"}, "options.not_before"),
        ({"not_before": "9999-12-31T23:59:59-14:00"}, "options.not_before"),
        ({"nice": 1}, "options.nice"),
        (None, "options"),
    ],
)
def test_bad_options_are_named(http: httpx.Client, options: Any, field: str) -> None:
    refused = http.post("/jobs", json=SPEC | {"options": options})
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["field"] == field


def test_options_make_another_request(http: httpx.Client) -> None:
    headers = {"Idempotency-Key": "k"}
    first = http.post("/jobs", json=SPEC, headers=headers)
    same = http.post("/jobs", json=SPEC | {"options": {"priority": 0}}, headers=headers)
    assert same.content == first.content
    other = http.post("/jobs", json=SPEC | {"options": {"priority": 1}}, headers=headers)
    assert other.json()["type"] == PROBLEM + "idempotency_key_reused"
