"""What Prometheus and the log say of an API."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import Engine, event

from api.monitoring import ApiMetrics
from store.reconciler import Reconciled
from store.settings import Settings

REPOSITORY = Path(__file__).resolve().parents[2]


def samples(client: httpx.Client) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    answer = client.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain")
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def labelled(name: str, **labels: str) -> tuple[str, frozenset[tuple[str, str]]]:
    return name, frozenset(labels.items())


def test_jobs_queues_and_workers_are_told(http: httpx.Client, jobs: Any) -> None:
    jobs.submit()
    jobs.submit()
    jobs.claim(jobs.submit())
    jobs.succeed(jobs.claim(jobs.submit()))
    seen = samples(http)
    assert seen[labelled("condenser_database_up")] == 1
    assert seen[labelled("condenser_jobs", queue="cpu", status="queued")] == 2
    assert seen[labelled("condenser_jobs", queue="cpu", status="running")] == 1
    assert seen[labelled("condenser_ended_jobs", status="succeeded")] == 1
    assert seen[labelled("condenser_queue_depth", queue="cpu")] == 2
    assert seen[labelled("condenser_oldest_job_seconds", queue="cpu", status="queued")] >= 0
    assert 0 <= seen[labelled("condenser_worker_heartbeat_age_seconds", worker="test")] < 60
    assert seen[labelled("condenser_database_connections_limit")] == 30


def test_requests_are_timed_by_route_and_never_by_path(http: httpx.Client, jobs: Any) -> None:
    job_id = jobs.submit()
    for path in (f"/jobs/{job_id}", "/jobs/none", f"/jobs/{job_id}?wait=0.01", "/no/such/route"):
        http.get(path)
    http.request("TRACE", "/jobs")
    seen = samples(http)

    def count(**labels: str) -> float:
        return seen[labelled("condenser_http_request_seconds_count", **labels)]

    assert count(method="GET", route="/jobs/{job_id}", status="200", kind="request") == 1
    assert count(method="GET", route="/jobs/{job_id}", status="404", kind="request") == 1
    assert count(method="GET", route="/jobs/{job_id}", status="200", kind="poll") == 1
    assert count(method="GET", route="unrouted", status="404", kind="request") == 1
    assert any(dict(labels).get("method") == "other" for _, labels in seen)
    assert not any(job_id in value for _, labels in seen for _, value in labels)


def test_open_streams_are_counted_while_they_last(
    http: httpx.Client, jobs: Any, eventually: Callable[..., Any]
) -> None:
    job_id = jobs.submit()
    streams = labelled("condenser_http_open_requests", kind="stream")
    with http.stream("GET", f"/jobs/{job_id}/events", headers={"Accept": "text/event-stream"}):
        assert samples(http)[streams] == 1
    eventually(lambda: samples(http)[streams] == 0)


def test_many_scrapes_read_the_job_table_once(engine: Engine) -> None:
    statements: list[str] = []

    @event.listens_for(engine, "before_cursor_execute")
    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        statements.append(statement)

    metrics = ApiMetrics()
    metrics.watch(engine, lease_seconds=60)
    for _ in range(50):
        metrics.text()
    assert sum("GROUP BY jobs.queue, jobs.status" in statement for statement in statements) == 1


def test_a_database_that_is_away_is_told_and_the_rest_still_answers(offline: httpx.Client) -> None:
    seen = samples(offline)
    assert seen[labelled("condenser_database_up")] == 0
    assert labelled("condenser_queue_depth", queue="cpu") not in seen
    assert seen[labelled("condenser_database_connections", state="in_use")] == 0


def test_passes_of_the_reconciler_are_counted() -> None:
    metrics = ApiMetrics()
    metrics.observe_pass(Reconciled(taken_back=["a", "b"], hinted=["c"]))
    metrics.observe_pass(None)
    taken_back = {"action": "taken_back"}
    assert metrics.registry.get_sample_value("condenser_reconciled_jobs_total", taken_back) == 2
    assert metrics.registry.get_sample_value("condenser_reconciler_last_pass_timestamp_seconds")


@pytest.fixture
def logged(
    service_environment: dict[str, str], teachers_dir: Path, free_port: int, api_key: str, tmp_path: Path
) -> Iterator[tuple[httpx.Client, Callable[[], str]]]:
    """A client of an API process, and a function that ends the process and returns what it logged."""
    command = [sys.executable, "-m", "api"]
    environment = {"PYTHONPATH": str(REPOSITORY), "TEACHERS_DIRS": str(teachers_dir)} | service_environment
    log = tmp_path / "api.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, "--port", str(free_port)],
            cwd=REPOSITORY,
            env=environment,
            stdout=output,
            stderr=output,
        )

    def end() -> str:
        process.terminate()
        process.wait(20)
        return log.read_text()

    headers = {"Authorization": f"Bearer {api_key}"}
    with httpx.Client(
        base_url=f"http://127.0.0.1:{free_port}", headers=headers, timeout=20, trust_env=False
    ) as client:
        yield client, end
    process.kill()
    process.wait()


def test_every_line_of_the_process_is_json_with_the_requests_id_and_no_secret(
    logged: tuple[httpx.Client, Callable[[], str]],
    service_environment: dict[str, str],
    eventually: Callable[..., Any],
    engine: Engine,
) -> None:
    client, end = logged

    def is_ready() -> bool:
        try:
            return client.get("/readyz").status_code == 200
        except httpx.TransportError:
            return False

    eventually(is_ready)
    request_id = {"X-Request-Id": "request-of-this-test"}
    body = {"teacher": "tiny", "captions": {"kind": "inline", "texts": ["my private caption", "another"]}}
    job = client.post("/jobs", json=body, headers=request_id).json()
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "ALTER TABLE jobs ADD CONSTRAINT no_more CHECK (teacher = 'none') NOT VALID"
        )
    try:
        failed = client.post("/jobs", json=body, headers={"X-Request-Id": "request-that-fails"})
    finally:
        with engine.begin() as connection:
            connection.exec_driver_sql("ALTER TABLE jobs DROP CONSTRAINT no_more")
    assert failed.status_code == 500
    text = end()
    entries = [json.loads(line) for line in text.splitlines()]
    assert {entry["process"] for entry in entries} == {"api"}
    of_request = [entry for entry in entries if entry.get("request_id") == "request-of-this-test"]
    accepted, answered = of_request
    assert (accepted["message"], accepted["job_id"]) == ("job accepted", job["id"])
    assert (answered["message"], answered["path"]) == ("POST /jobs: 201", "/jobs")
    assert any(entry["logger"] == "uvicorn.error" for entry in entries)
    assert any(
        "no_more" in entry.get("exception", "")
        for entry in entries
        if entry.get("request_id") == "request-that-fails"
    )
    assert "private" not in text
    assert service_environment["S3_SECRET_ACCESS_KEY"] not in text
    assert Settings.model_validate({k.lower(): v for k, v in service_environment.items()}).secrets()
