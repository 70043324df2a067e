"""Pictures over HTTP: asked of a job that has succeeded, waited for, cancelled, deleted."""

import threading
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine

from store import generations, workers
from store.database import server_now, transaction
from store.jobs import Claim
from store.leases import NewArtifact, add_artifacts
from store.objects import ObjectStore
from store.queue import count_hints
from store.settings import Settings
from store.unclaimed import announce

PROBLEM = "urn:condenser:problem:"


@pytest.fixture
def finished(jobs: Any, engine: Engine) -> Callable[..., str]:
    """Makes a job that has succeeded and left a student."""

    def finish(**spec: Any) -> str:
        claim: Claim = jobs.claim(jobs.submit(**spec))
        archive = NewArtifact(
            path="student.zip", kind="student_archive", step=None, key=claim.job_id, size=1, sha256="0"
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
        return claim.job_id

    return finish


def take(engine: Engine, worker: str = "w") -> generations.GenerationClaim:
    """Claim what waits; while a reader's transaction holds its row it is passed over."""
    for _ in range(100):
        with transaction(engine) as session:
            claim = generations.claim_next_generation(
                session, worker=worker, now=server_now(session), lease_seconds=60
            )
        if claim is not None:
            return claim
    raise AssertionError("nothing waits")


def test_teacher_and_student_are_drawn_as_they_were_evaluated_and_waited_for(
    http: httpx.Client,
    finished: Callable[..., str],
    engine: Engine,
    object_store: ObjectStore,
    settings: Settings,
    tmp_path: Any,
) -> None:
    job_id = finished(
        evaluation={"sampler": "ddim", "steps": 30, "guidance_scale": 4.0},
        few_step={"steps": 2},
    )
    body = {"prompt": "  red apple ", "seed": 7}
    headers = {"Idempotency-Key": "once"}
    made = http.post(f"/jobs/{job_id}/generate", json=body, headers=headers)
    assert made.status_code == 202, made.text
    told = made.json()
    path = f"/generations/{told['id']}"
    assert made.headers["Location"] == path
    assert http.post(f"/jobs/{job_id}/generate", json=body, headers=headers).json() == told
    assert (told["status"], told["prompt"], told["seed"]) == ("queued", "red apple", 7)
    assert told["waiting_reason"] == "no_worker"
    assert "No interactive worker" in told["waiting_message"]
    how = [
        (each["model"], each["sampler"], each["steps"], each["guidance_scale"]) for each in told["pictures"]
    ]
    assert how == [("teacher", "ddim", 30, 4.0), ("student", "ddim-trailing", 2, 1.0)]
    assert [each["name"] for each in told["pictures"]] == ["tiny", "b-small"]
    assert count_hints(settings, settings.interactive_queue) == 1

    waited: list[httpx.Response] = []
    tag = http.get(path).headers["ETag"]
    asking = threading.Thread(
        target=lambda: waited.append(http.get(path, params={"wait": 20}, headers={"If-None-Match": tag}))
    )
    asking.start()
    with transaction(engine) as session:
        told = workers.Announcement("w", "interactive", "h", "interactive", "0.1.0", "a processor", 2, None)
        workers.announce(session, told, started_at=server_now(session), now=server_now(session))
    claim = take(engine)
    asking.join()
    assert waited[0].json()["status"] == "running"
    assert http.get(path, headers={"If-None-Match": waited[0].headers["ETag"]}).status_code == 304

    file = tmp_path / "0.png"
    file.write_bytes(b"a picture")
    key = generations.picture_key(claim.generation_id, claim.lease_token, 0)
    with transaction(engine) as session:
        announce(session, key, now=server_now(session))
    stored = object_store.upload_file(file, key)
    drawn = generations.Picture(
        key=key, size=9, sha256=stored.sha256, width=64, height=64, seconds=0.25, load_seconds=1.5
    )
    lease: dict[str, Any] = {"generation_id": claim.generation_id, "lease_token": claim.lease_token}
    with transaction(engine) as session:
        generations.add_picture(session, **lease, position=0, picture=drawn)
        generations.finish_generation(session, **lease, now=server_now(session))
    done = http.get(path, params={"wait": 20}).json()
    assert (done["status"], done["waiting_reason"]) == ("succeeded", None)
    first, second = done["pictures"]
    assert (first["seconds"], first["load_seconds"], first["width"], second["url"]) == (0.25, 1.5, 64, None)
    assert httpx.get(first["url"], trust_env=False).content == b"a picture"
    assert "key" not in first
    refused = http.post(f"{path}/cancel")
    assert (refused.status_code, refused.json()["type"]) == (409, PROBLEM + "generation_ended")
    assert http.delete(path).status_code == 204
    assert http.get(path).status_code == http.delete(path).status_code == 404


def test_only_models_of_jobs_that_have_succeeded_draw_and_within_bounds(
    http: httpx.Client, finished: Callable[..., str], jobs: Any
) -> None:
    job_id, other, waits = finished(), finished(student="b-tiny"), jobs.submit()

    def refusal(job: str, **body: Any) -> tuple[int, str, list[str]]:
        answer = http.post(f"/jobs/{job}/generate", json={"prompt": "cat"} | body)
        problem = answer.json()
        fields = [each["field"] for each in problem["errors"]]
        return answer.status_code, problem["type"].removeprefix(PROBLEM), fields

    assert refusal(waits) == (409, "job_not_succeeded", [])
    pair = [{"model": "student"}, {"model": "student", "job_id": other}]
    chosen = http.post(f"/jobs/{job_id}/generate", json={"prompt": "cat", "models": pair, "steps": 9}).json()
    assert [(each["name"], each["job_id"], each["steps"]) for each in chosen["pictures"]] == [
        ("b-small", job_id, 9),
        ("b-tiny", other, 9),
    ]
    assert 0 <= chosen["seed"] < 2**32
    pair[1]["job_id"] = waits
    assert refusal(job_id, models=pair) == (409, "job_not_succeeded", [])
    pair[1]["job_id"] = "019ab2c4-7f1e-7c3a-9d52-0b6a4be1d9aa"
    assert refusal(job_id, models=pair) == (422, "invalid_input", ["models.1.job_id"])
    assert refusal(pair[1]["job_id"])[0] == 404
    for field, value in {
        "prompt": "",
        "steps": 101,
        "guidance_scale": 0.5,
        "seed": 2**32,
        "sampler": "euler",
        "models": [],
        "height": 64,
    }.items():
        status, kind, fields = refusal(job_id, **{field: value})
        assert (status, kind) == (422, "invalid_input"), field
        assert fields == [field]
    assert refusal(job_id, models=[{"model": "teacher"}] * 2)[0] == 422


def test_a_tenant_may_ask_for_so_many_at_a_time_and_cancelling_makes_room(
    api_settings: Settings, serve: Any, finished: Callable[..., str], engine: Engine
) -> None:
    job_id = finished()
    with serve(api_settings.model_copy(update={"quota_open_generations": 1})) as http:
        first = http.post(f"/jobs/{job_id}/generate", json={"prompt": "cat"}).json()
        refused = http.post(f"/jobs/{job_id}/generate", json={"prompt": "cat"})
        assert refused.status_code == 409
        assert refused.json()["quota"] == {"name": "open_generations", "limit": 1, "present": 1}
        take(engine)
        for _ in range(2):
            cancelled = http.post(f"/generations/{first['id']}/cancel").json()
            assert (cancelled["status"], cancelled["reason"]) == ("cancelled", "cancelled_by_user")
        assert http.post(f"/jobs/{job_id}/generate", json={"prompt": "cat"}).status_code == 202
