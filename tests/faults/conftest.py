"""The workplace of the worker's tests, and servers that a test may stop without harm to others."""

import os
import subprocess
import sys
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis

from benchmarks import admission
from store.reconciler import run_reconciler
from tests.api.conftest import teachers_dir as teachers_dir
from tests.faults.servers import REPOSITORY, OwnServers
from tests.worker.conftest import at_step as at_step
from tests.worker.conftest import doors as doors
from tests.worker.conftest import send_on as send_on
from tests.worker.conftest import start_worker as start_worker
from tests.worker.conftest import workplace as workplace

LEASE_SECONDS = 4.0
RECONCILE_SECONDS = 0.2


@pytest.fixture(scope="session")
def _own_servers() -> Iterator[OwnServers]:
    with tempfile.TemporaryDirectory(prefix="condenser-faults-") as folder:
        servers = OwnServers(Path(folder) / "stack")
        try:
            servers.start()
            servers.migrate()
            yield servers
        finally:
            servers.stop()


@pytest.fixture
def servers(_own_servers: OwnServers) -> OwnServers:
    """This test process's own servers, all of which run; the test may stop and start them."""
    _own_servers.start()
    return _own_servers


@pytest.fixture
def own_environment(servers: OwnServers, tmp_path: Path) -> Iterator[dict[str, str]]:
    """As `service_environment`, on the servers that the test may stop, and with short leases."""
    database = f"test_{uuid.uuid4().hex}"
    environment = servers.environment() | {
        **admission.VARIABLES,
        "DATABASE_URL": servers.create_database(database, template="condenser"),
        "DATA_DIR": str(tmp_path / "data"),
        "LEASE_SECONDS": str(LEASE_SECONDS),
        "HEARTBEAT_SECONDS": "0.05",
        "RECONCILE_SECONDS": str(RECONCILE_SECONDS),
        "CANCEL_GRACE_SECONDS": "10",
    }
    yield environment
    servers.start()
    servers.administer("DROP DATABASE {} WITH (FORCE)", database)
    with redis.Redis.from_url(environment["REDIS_URL"]) as client:
        client.flushall()


@pytest.fixture
def reconciler(workplace: Any) -> Iterator[threading.Thread]:
    """The reconciler as an API process runs it."""
    stop = threading.Event()
    thread = threading.Thread(target=run_reconciler, args=(workplace.engine, workplace.settings, stop))
    thread.start()
    yield thread
    stop.set()
    thread.join()


class Api:
    """An API process and a client of it."""

    def __init__(self, process: "subprocess.Popen[bytes]", url: str, api_key: str) -> None:
        self.process = process
        headers = {"Authorization": f"Bearer {api_key}"}
        self.client = httpx.Client(base_url=url, headers=headers, timeout=20, trust_env=False)

    def answers(self) -> bool:
        assert self.process.poll() is None
        try:
            return self.client.get("/healthz").is_success
        except httpx.TransportError:
            return False

    def submit(self) -> str:
        """Submit a job over HTTP."""
        captions = {"kind": "inline", "texts": ["a cat", "a dog"]}
        answer = self.client.post("/jobs", json={"teacher": "tiny", "captions": captions})
        assert answer.status_code == 201, answer.text
        job_id: str = answer.json()["id"]
        return job_id


@pytest.fixture
def start_api(
    service_environment: dict[str, str], teachers_dir: Path, tmp_path: Path, eventually: Callable[..., Any]
) -> Iterator[Callable[[], Api]]:
    """Starts an API process as in production, and waits until it answers."""
    started: list[Api] = []

    def start() -> Api:
        from tests.api.conftest import closed_port

        port = closed_port()
        command = [sys.executable, "-m", "api"]
        environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(REPOSITORY),
            "TEACHERS_DIRS": str(teachers_dir),
            **service_environment,
        }
        with (tmp_path / f"api-{len(started)}.log").open("wb") as log:
            process = subprocess.Popen(
                [*command, "--port", str(port)], cwd=tmp_path, env=environment, stdout=log, stderr=log
            )
        api_key = admission.make_api_key(service_environment)
        started.append(Api(process, f"http://127.0.0.1:{port}", api_key))
        eventually(started[-1].answers)
        return started[-1]

    yield start
    for api in started:
        api.client.close()
        api.process.kill()
        api.process.wait()
