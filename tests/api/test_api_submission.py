"""Submitting jobs: what is written, what the workers are told, and what a repeated request gets."""

import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
from sqlalchemy import Engine

from core.spec import DistillationSpec
from store.queue import count_hints
from store.settings import Settings
from tests.api.conftest import UNFINISHED
from tests.postgres_locks import waits_for_a_lock

SPEC = {"teacher": "tiny", "student": {"width": 0.5}, "seed": 7}


def test_a_submitted_job_is_queued_with_every_default(http: httpx.Client) -> None:
    answer = http.post("/jobs", json=SPEC)
    assert answer.status_code == 201
    job = answer.json()
    assert answer.headers["location"] == f"/jobs/{job['id']}" == job["links"]["self"]
    assert job["status"] == "queued"
    assert job["student"] == "width-0.5"
    assert job["version"] == 1
    assert [entry["status"] for entry in job["transitions"]] == ["queued"]
    assert job["spec"] == DistillationSpec.model_validate(SPEC).model_dump(mode="json")
    assert http.get(answer.headers["location"]).json() == job
    assert "idempotency-replayed" not in answer.headers


def test_fewer_captions_than_the_default_are_all_drawn(http: httpx.Client) -> None:
    captions = {"kind": "inline", "texts": ["cat", "dog", "cat"]}
    job = http.post("/jobs", json={"teacher": "tiny", "captions": captions}).json()
    assert job["spec"]["drawn"]["count"] == 2


def test_a_caption_file_is_kept_with_its_full_path(http: httpx.Client, api_settings: Settings) -> None:
    api_settings.captions_folder.mkdir(parents=True)
    path = api_settings.captions_folder / "animals.txt"
    path.write_text("cat\n")
    captions = {"kind": "file", "path": "animals.txt"}
    job = http.post("/jobs", json={"teacher": "tiny", "captions": captions}).json()
    assert job["spec"]["captions"]["path"] == str(path.resolve())


def test_the_workers_are_told(
    http: httpx.Client, api_settings: Settings, eventually: Callable[[Callable[[], Any]], Any]
) -> None:
    http.post("/jobs", json=SPEC)
    eventually(lambda: count_hints(api_settings, api_settings.worker_queue) >= 1)


def test_a_broker_that_is_down_does_not_refuse_a_job(
    api_settings: Settings, offline_settings: Settings, serve: Any
) -> None:
    with serve(api_settings.model_copy(update={"redis_url": offline_settings.redis_url})) as client:
        answer = client.post("/jobs", json=SPEC)
        assert answer.status_code == 201
        assert client.get(answer.headers["location"]).json()["status"] == "queued"


def test_a_broker_that_never_answers_does_not_delay_a_job(api_settings: Settings, serve: Any) -> None:
    """Whoever waited for it would wait for ten seconds at each of three tries."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with serve(api_settings.model_copy(update={"redis_url": f"redis://127.0.0.1:{port}/0"})) as client:
            began = time.monotonic()
            answer = client.post("/jobs", json=SPEC)
            assert answer.status_code == 201
            # The connection that carried it is not held up either.
            assert client.get(answer.headers["location"]).json()["status"] == "queued"
            assert time.monotonic() - began < 20
            silent.close()


def test_the_reconciler_tells_the_workers_of_a_job_whose_hint_was_lost(
    api_settings: Settings,
    offline_settings: Settings,
    serve: Any,
    eventually: Callable[[Callable[[], Any]], Any],
) -> None:
    with serve(api_settings.model_copy(update={"redis_url": offline_settings.redis_url})) as client:
        assert client.post("/jobs", json=SPEC).status_code == 201
    assert count_hints(api_settings, api_settings.worker_queue) == 0
    with serve(api_settings.model_copy(update={"reconcile_seconds": 0.1})):
        eventually(lambda: count_hints(api_settings, api_settings.worker_queue) == 1)


def test_a_repeated_request_gets_the_first_answer_whatever_became_of_the_job(http: httpx.Client) -> None:
    headers = {"Idempotency-Key": '"8e03978e-40d5-43dd-bc93-6894a57f9324"'}
    first = http.post("/jobs", json=SPEC, headers=headers)
    assert http.post(f"/jobs/{first.json()['id']}/cancel").json()["status"] == "cancelled"
    unquoted = {"Idempotency-Key": headers["Idempotency-Key"].strip('"')}
    again = http.post("/jobs", json={"seed": 7} | SPEC, headers=unquoted)
    assert (again.status_code, again.content) == (first.status_code, first.content)
    assert again.headers["idempotency-replayed"] == "true"
    assert again.headers["location"] == first.headers["location"]
    assert len(http.get("/jobs").json()["items"]) == 1


def test_a_key_used_with_another_request_is_refused(http: httpx.Client) -> None:
    headers = {"Idempotency-Key": "k"}
    assert http.post("/jobs", json=SPEC, headers=headers).status_code == 201
    other = http.post("/jobs", json=SPEC | {"seed": 8}, headers=headers)
    assert other.status_code == 422
    assert other.json()["type"] == "urn:condenser:problem:idempotency_key_reused"
    assert other.json()["errors"][0]["field"] == "Idempotency-Key"


def test_a_key_whose_first_request_is_under_way_is_in_conflict(
    http: httpx.Client, engine: Engine, eventually: Callable[[Callable[[], Any]], Any]
) -> None:
    headers = {"Idempotency-Key": "k"}
    answers: list[httpx.Response] = []

    def submit() -> httpx.Response:
        answers.append(http.post("/jobs", json=SPEC, headers=headers))
        return answers[-1]

    with engine.connect() as other, ThreadPoolExecutor() as threads:
        other.execute(UNFINISHED)
        first = threads.submit(submit)
        eventually(lambda: waits_for_a_lock(engine))
        second = submit()
        assert not first.done()
        other.rollback()
        assert first.result().status_code == 201
    assert second.status_code == 409
    assert second.json()["type"] == "urn:condenser:problem:request_in_progress"
    assert submit().content == first.result().content


def test_requests_sent_at_once_with_one_key_make_one_job(http: httpx.Client) -> None:
    with ThreadPoolExecutor(8) as threads:
        sent = [
            threads.submit(http.post, "/jobs", json=SPEC, headers={"Idempotency-Key": "k"}) for _ in range(24)
        ]
    answers = [future.result() for future in sent]
    assert {answer.status_code for answer in answers} <= {201, 409}
    assert len({answer.content for answer in answers if answer.status_code == 201}) == 1
    assert len(http.get("/jobs").json()["items"]) == 1


def test_a_refused_request_leaves_its_key_free(http: httpx.Client) -> None:
    headers = {"Idempotency-Key": "k"}
    assert http.post("/jobs", json=SPEC | {"teacher": "x"}, headers=headers).status_code == 422
    assert http.post("/jobs", json=SPEC, headers=headers).status_code == 201
