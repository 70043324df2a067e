"""Requests of a key are counted, by all API processes together, and pass while nobody can count."""

import re
from contextlib import ExitStack
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine

from api.errors import RateLimitedError
from api.rate_limits import AWAY_SECONDS, RateLimits
from store.api_keys import create_key
from store.database import server_now, transaction
from store.settings import Settings
from tests.api.conftest import StallingServer

LIMIT = 5


@pytest.fixture
def strict(api_settings: Settings) -> Settings:
    return api_settings.model_copy(update={"rate_limit_per_minute": LIMIT})


@pytest.fixture
def other_key(engine: Engine, api_settings: Settings) -> dict[str, str]:
    with transaction(engine) as session:
        now, pepper = server_now(session), api_settings.required_pepper()
        key = create_key(session, name="k", scopes=["read"], pepper=pepper, now=now).key
    return {"Authorization": f"Bearer {key}"}


def test_a_key_past_its_limit_is_refused_by_every_process_and_others_are_not(
    strict: Settings, serve: Any, other_key: dict[str, str]
) -> None:
    with ExitStack() as stack:
        first, second = (stack.enter_context(serve(strict)) for _ in range(2))
        left = []
        for index in range(LIMIT):
            answer = (first, second)[index % 2].get("/jobs")
            assert answer.status_code == 200
            assert answer.headers["ratelimit-policy"] == f'"key";q={LIMIT};w=60'
            standing = re.fullmatch(r'"key";r=(\d+);t=(\d+)', answer.headers["ratelimit"])
            assert standing is not None
            left.append(int(standing[1]))
            assert 1 <= int(standing[2]) <= 120
        assert left == [4, 3, 2, 1, 0]
        for http in (first, second):
            refused = http.get("/jobs")
            assert refused.status_code == 429
            assert refused.json()["type"] == "urn:condenser:problem:rate_limited"
            assert 1 <= int(refused.headers["retry-after"]) <= 120
            assert http.get("/jobs", headers=other_key).status_code == 200
            assert http.get("/healthz").status_code == 200


def test_every_kind_of_answer_says_where_the_key_stands(http: httpx.Client, jobs: Any) -> None:
    job_id = jobs.submit()
    tag = {"If-None-Match": http.get(f"/jobs/{job_id}").headers["etag"]}
    answers = [
        http.get(f"/jobs/{job_id}"),
        http.get(f"/jobs/{job_id}", headers=tag),
        http.get(f"/jobs/{job_id}/metrics", headers={"Accept": "text/csv"}),
        http.get("/jobs/nothing"),
        http.post("/jobs", json={"teacher": 1}),
        http.post(f"/jobs/{job_id}/cancel"),
        http.get(f"/jobs/{job_id}/events", headers={"Accept": "text/event-stream"}),
        http.delete(f"/jobs/{job_id}"),
    ]
    assert [answer.status_code for answer in answers] == [200, 304, 200, 404, 422, 200, 200, 204]
    for answer in answers:
        assert answer.headers["ratelimit"].startswith('"key";r=')


def test_no_limit_is_no_limit(api_settings: Settings, serve: Any) -> None:
    with serve(api_settings.model_copy(update={"rate_limit_per_minute": None})) as http:
        answer = http.get("/jobs")
    assert answer.status_code == 200
    assert "ratelimit" not in answer.headers


def test_requests_pass_while_valkey_is_gone(strict: Settings, offline_settings: Settings, serve: Any) -> None:
    with serve(strict.model_copy(update={"redis_url": offline_settings.redis_url})) as http:
        answers = [http.get("/jobs") for _ in range(2 * LIMIT)]
    assert {answer.status_code for answer in answers} == {200}


def test_a_stalling_valkey_slows_one_request_and_not_all(
    strict: Settings, stalling_server: StallingServer
) -> None:
    seconds = 0.0
    stalling = strict.model_copy(update={"redis_url": f"redis://{stalling_server.address}/0"})
    limits = RateLimits(stalling, clock=lambda: seconds)
    assert limits.count("k") is None
    tried = stalling_server.taken
    assert tried >= 1
    for _ in range(100):
        assert limits.count("k") is None
    assert stalling_server.taken == tried, "it is not asked again at once"
    seconds = AWAY_SECONDS
    limits.count("k")
    assert stalling_server.taken > tried
    limits.close()


def test_keys_are_counted_apart(strict: Settings) -> None:
    limits = RateLimits(strict)
    for _ in range(LIMIT):
        assert limits.count("k") is not None
    with pytest.raises(RateLimitedError):
        limits.count("k")
    assert limits.count("another key") is not None
    limits.close()
