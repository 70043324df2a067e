"""Requests that are carried out once: across processes, on each route that creates, answered the same."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine, text

from store.settings import Settings
from tests.api.conftest import UNFINISHED
from tests.postgres_locks import waits_for_a_lock

SPEC = {"teacher": "tiny", "student": {"width": 0.5}, "seed": 7}
KEY = {"Idempotency-Key": "k"}
PROBLEM = "urn:condenser:problem:"


def cancelled_job(http: httpx.Client) -> str:
    job_id: str = http.post("/jobs", json=SPEC).json()["id"]
    http.post(f"/jobs/{job_id}/cancel")
    return job_id


@pytest.mark.parametrize("path", ["/jobs", "/webhooks"])
def test_while_the_first_is_under_way_another_process_says_so(
    api_settings: Settings,
    serve: Any,
    engine: Engine,
    eventually: Callable[..., Any],
    path: str,
) -> None:
    body = SPEC if path == "/jobs" else {"url": "https://example.com/"}
    with (
        serve(api_settings) as one,
        serve(api_settings) as another,
        engine.connect() as other,
        ThreadPoolExecutor() as threads,
    ):
        other.execute(UNFINISHED)
        first = threads.submit(one.post, path, json=body, headers=KEY)
        eventually(lambda: waits_for_a_lock(engine))
        second = another.post(path, json=body, headers=KEY)
        assert not first.done()
        assert (second.status_code, second.json()["type"]) == (409, PROBLEM + "request_in_progress")
        other.rollback()
        answer = first.result()
        assert answer.status_code == 201
        again = another.post(path, json=body, headers=KEY)
        assert (again.status_code, again.content) == (201, answer.content)
        assert again.headers["location"] == answer.headers["location"]
        assert again.headers["idempotency-replayed"] == "true"


def test_a_retry_whose_answer_was_lost_gets_it_again(http: httpx.Client) -> None:
    job_id = cancelled_job(http)
    first = http.post(f"/jobs/{job_id}/retry", headers=KEY)
    assert (first.status_code, first.json()["status"]) == (200, "queued")
    assert http.post(f"/jobs/{job_id}/retry").status_code == 409
    again = http.post(f"/jobs/{job_id}/retry", headers=KEY)
    assert (again.status_code, again.content) == (200, first.content)
    other = http.post(f"/jobs/{job_id}/retry", params={"from_scratch": True}, headers=KEY)
    assert (other.status_code, other.json()["type"]) == (422, PROBLEM + "idempotency_key_reused")


def test_a_refused_retry_leaves_its_key_free(http: httpx.Client) -> None:
    job_id = http.post("/jobs", json=SPEC).json()["id"]
    assert http.post(f"/jobs/{job_id}/retry", headers=KEY).status_code == 409
    http.post(f"/jobs/{job_id}/cancel")
    assert http.post(f"/jobs/{job_id}/retry", headers=KEY).status_code == 200


def test_a_webhooks_secret_comes_again_with_the_first_answer_and_lies_encrypted(
    http: httpx.Client, engine: Engine
) -> None:
    body = {"url": "https://example.com/hook"}
    first = http.post("/webhooks", json=body, headers=KEY)
    again = http.post("/webhooks", json=body, headers=KEY)
    assert (again.status_code, again.content) == (201, first.content)
    assert len(http.get("/webhooks").json()["items"]) == 1
    path = f"/webhooks/{first.json()['id']}/rotate-secret"
    rotated = http.post(path, headers={"Idempotency-Key": "r"})
    assert http.post(path, headers={"Idempotency-Key": "r"}).content == rotated.content
    with engine.connect() as connection:
        kept = " ".join(connection.execute(text("SELECT answer FROM idempotency_records")).scalars())
    assert first.json()["secret"] not in kept
    assert rotated.json()["secret"] not in kept
    other = http.post("/webhooks", json=body | {"description": "x"}, headers=KEY)
    assert (other.status_code, other.json()["type"]) == (422, PROBLEM + "idempotency_key_reused")


def test_a_key_belongs_to_one_route(http: httpx.Client) -> None:
    job_id = http.post("/jobs", json=SPEC, headers=KEY).json()["id"]
    http.post(f"/jobs/{job_id}/cancel")
    for path in (f"/jobs/{job_id}/retry", f"/jobs/{job_id}/clone"):
        assert http.post(path, headers=KEY).json()["type"] == PROBLEM + "idempotency_key_reused"
    answer = http.post("/webhooks", json={"url": "https://example.com/"}, headers=KEY)
    assert answer.json()["type"] == PROBLEM + "idempotency_key_reused"


def test_a_repeated_request_makes_no_job_anew_after_its_job_was_deleted(http: httpx.Client) -> None:
    first = http.post("/jobs", json=SPEC, headers=KEY)
    http.delete(first.headers["location"])
    again = http.post("/jobs", json=SPEC, headers=KEY)
    assert (again.status_code, again.content) == (201, first.content)
    assert http.get("/jobs").json()["items"] == []


def test_a_repeated_clone_is_answered_after_its_original_was_deleted(http: httpx.Client) -> None:
    job_id = cancelled_job(http)
    first = http.post(f"/jobs/{job_id}/clone", headers=KEY)
    http.delete(f"/jobs/{job_id}")
    assert http.post(f"/jobs/{job_id}/clone", headers=KEY).content == first.content


def test_a_record_of_the_release_before_still_finds_its_job(http: httpx.Client, engine: Engine) -> None:
    first = http.post("/jobs", json=SPEC, headers=KEY)
    with engine.begin() as connection:
        connection.execute(
            text("UPDATE idempotency_records SET answer = NULL, status_code = NULL, location = NULL")
        )
    again = http.post("/jobs", json=SPEC, headers=KEY)
    assert (again.status_code, again.content) == (201, first.content)
    assert len(http.get("/jobs").json()["items"]) == 1
