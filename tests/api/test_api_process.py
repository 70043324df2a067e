"""The API as a process: its start, its end, its health and what it does when it fails."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine, text

from store.settings import Settings
from tests.conftest import PATIENCE_SECONDS

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def process(
    service_environment: dict[str, str], teachers_dir: Path, free_port: int, tmp_path: Path
) -> Iterator["subprocess.Popen[bytes]"]:
    """The API as it is started in production."""
    command = [sys.executable, "-m", "api"]
    environment = os.environ | service_environment | {"TEACHERS_DIRS": str(teachers_dir)}
    with (tmp_path / "api.log").open("wb") as log:
        process = subprocess.Popen(
            [*command, "--port", str(free_port)], cwd=REPOSITORY, env=environment, stdout=log, stderr=log
        )
        yield process
        process.kill()
        process.wait()


def test_sigterm_ends_streams_and_polls_at_once(
    process: "subprocess.Popen[bytes]",
    free_port: int,
    api_key: str,
    jobs: Any,
    eventually: Callable[..., Any],
    tmp_path: Path,
) -> None:
    job_id = jobs.submit()
    url = f"http://127.0.0.1:{free_port}"

    def is_ready() -> bool:
        assert process.poll() is None, (tmp_path / "api.log").read_text()
        try:
            return httpx.get(f"{url}/readyz", trust_env=False).status_code == 200
        except httpx.TransportError:
            return False

    eventually(is_ready)
    with (
        httpx.Client(
            base_url=url, headers={"Authorization": f"Bearer {api_key}"}, timeout=20, trust_env=False
        ) as client,
        client.stream("GET", f"/jobs/{job_id}/events", headers={"Accept": "text/event-stream"}) as stream,
        client.stream("GET", f"/jobs/{job_id}/events", headers={"Accept": "text/event-stream"}) as abandoned,
    ):
        lines = stream.iter_lines()
        assert next(lines) == "retry: 1000"
        assert abandoned.status_code == 200
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert "event: status" in list(lines)
        process.wait(20)
    assert time.monotonic() - began < 15
    log = (tmp_path / "api.log").read_text()
    assert "Application shutdown complete" in log
    assert "Traceback" not in log


def test_a_poll_is_answered_when_the_service_stops(api_settings: Settings, serve: Any, jobs: Any) -> None:
    job_id = jobs.submit()
    with serve(api_settings) as client:
        key = client.headers["Authorization"]
        request = f"GET /jobs/{job_id}?wait=60 HTTP/1.1\r\nHost: localhost\r\nAuthorization: {key}\r\n\r\n"
        poll = socket.create_connection((client.base_url.host, client.base_url.port), timeout=20)
        poll.sendall(request.encode())
        # Requests are taken in order: once this later one is answered, the poll is being waited for.
        client.get(f"/jobs/{job_id}", params={"wait": 0.2})
        began = time.monotonic()
    assert time.monotonic() - began < 15
    with poll, poll.makefile("rb") as answer:
        assert answer.readline() == b"HTTP/1.1 200 OK\r\n"


def test_readiness_names_what_does_not_answer(
    http: httpx.Client, offline: httpx.Client, api_settings: Settings
) -> None:
    assert http.get("/readyz").json() == {"status": "ready", "checks": ["postgres", "queue", "object_store"]}
    began = time.monotonic()
    answer = offline.get("/readyz")
    assert time.monotonic() - began < 4
    assert answer.status_code == 503
    assert answer.headers["content-type"] == "application/problem+json"
    assert [error["field"] for error in answer.json()["errors"]] == ["postgres", "queue", "object_store"]
    assert offline.get("/healthz").json() == {"status": "alive"}


def test_an_unforeseen_error_is_a_problem_without_internals(
    http: httpx.Client, engine: Engine, jobs: Any, caplog: pytest.LogCaptureFixture
) -> None:
    job_id = jobs.submit()
    with engine.begin() as connection:
        connection.execute(text("""UPDATE jobs SET student = '{"secret": 1}'"""))
    answer = http.get(f"/jobs/{job_id}", headers={"X-Request-Id": "from-the-client"})
    assert answer.status_code == 500
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json() == {
        "type": "urn:condenser:problem:internal_error",
        "title": "Internal error",
        "status": 500,
        "detail": "The service failed to answer this request. The failure is logged under the request id.",
        "instance": f"/jobs/{job_id}",
        "request_id": "from-the-client",
        "errors": [],
    }
    assert answer.headers["x-request-id"] == "from-the-client"
    assert any("from-the-client" in record.getMessage() and record.exc_info for record in caplog.records)


def test_the_process_ends_with_what_runs_beside_the_requests(
    offline_settings: Settings, free_port: int, tmp_path: Path
) -> None:
    program = f"""
import sys
from api.__main__ import main
from api.jobs.watch import JobWatch

async def run(watch, closing):
    raise RuntimeError("the watch has failed")

JobWatch.run = run
sys.argv[1:] = ["--port", "{free_port}"]
main()
"""
    environment = {
        "DATABASE_URL": offline_settings.database_url,
        "REDIS_URL": offline_settings.redis_url,
        "S3_ENDPOINT_URL": str(offline_settings.s3_endpoint_url),
        "API_KEY_PEPPER": offline_settings.required_pepper(),
    }
    with (tmp_path / "api.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", program],
            cwd=REPOSITORY,
            env=os.environ | environment,
            stdout=log,
            stderr=log,
        )
    try:
        assert process.wait(PATIENCE_SECONDS) == -signal.SIGTERM
    finally:
        process.kill()
        process.wait()
    assert "the watch has failed" in (tmp_path / "api.log").read_text()


def test_the_process_never_loads_torch() -> None:
    program = (
        "import sys, api.app; sys.exit(any(name in sys.modules for name in ('torch', 'diffusers', 'worker')))"
    )
    subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, check=True)
