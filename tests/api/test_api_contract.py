"""The served API keeps to its OpenAPI document, whatever is asked of it."""

from typing import Any

import httpx
import pytest
from sqlalchemy import Engine

from benchmarks.contract.cases import run_cases
from benchmarks.contract.seed import seed
from store.settings import Settings
from tests.api.conftest import TEACHER, check_declared

CASES_OF_EACH = 4


def test_generated_requests_find_no_answer_that_is_not_described(
    api_settings: Settings, engine: Engine, serve: Any, api_key: str
) -> None:
    seeded = seed(engine, api_settings, TEACHER, jobs_of_each=2)
    # Nothing may call out to what the generated webhooks name.
    with serve(api_settings.model_copy(update={"webhook_senders": 0})) as http:
        document = http.get("/openapi.json").json()
        report = run_cases(document, str(http.base_url), api_key, seeded, cases_of_each=CASES_OF_EACH, seed=4)
    summary = "\n".join(report.lines())
    operations = {
        f"{method.upper()} {path}" for path, methods in document["paths"].items() for method in methods
    }
    assert report.cases.keys() == operations, summary
    assert sum(report.statuses[status] for status in (200, 201, 204, 307)) > len(operations), summary
    assert report.failures == {}, summary


def test_the_tests_own_client_notices_an_answer_that_is_not_declared(offline: httpx.Client) -> None:
    """Every test of the API goes through this check."""
    [hook] = offline.event_hooks["response"]
    app = hook.args[0]
    path = httpx.Request("GET", "http://x/jobs/019ab2c4-7f1e-7c3a-9d52-0b6a4be1d9aa")
    check_declared(app, httpx.Response(304, request=path))
    check_declared(
        app, httpx.Response(404, request=path, headers={"content-type": "application/problem+json"})
    )
    with pytest.raises(AssertionError, match="answered 418"):
        check_declared(app, httpx.Response(418, request=path))
    with pytest.raises(AssertionError, match="undeclared text/html"):
        check_declared(app, httpx.Response(404, request=path, headers={"content-type": "text/html"}))
