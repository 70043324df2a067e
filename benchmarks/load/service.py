"""The service under test: the embedded servers, migrated, with one API process beside them.

No Celery worker runs: 1,000 real trainings would take the machine for hours. `benchmarks.load.mover` makes a
worker's moves in the database instead.
"""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep

import httpx
import psutil

from benchmarks import admission
from embedded.ports import LOOPBACK, PortBook
from embedded.stack import running

REPOSITORY = Path(__file__).resolve().parents[2]
READY_SECONDS = 60.0
STOP_SECONDS = 30.0


@dataclass(frozen=True)
class Service:
    """A running service.

    Attributes
    ----------
    api_key
        Lets requests in.
    environment
        Settings of a process that shall work with it.
    api
        The API's process; the database's is ``postgres``.
    """

    url: str
    api_key: str
    environment: dict[str, str]
    api: psutil.Process
    postgres: psutil.Process


@contextmanager
def serving(data_dir: Path) -> Iterator[Service]:
    """Run servers and API in a data folder for the length of a ``with`` block."""
    with running(data_dir, environ={}) as stack:
        environment = {**_base_environment(), **admission.VARIABLES, **stack.environment()}
        migrate = [sys.executable, "-m", "alembic", "-c", str(REPOSITORY / "alembic.ini"), "upgrade", "head"]
        subprocess.run(migrate, cwd=REPOSITORY, env=environment, check=True, capture_output=True)
        postgres = next(record.find() for record in stack.processes if record.name == "postgres")
        assert postgres is not None
        with api_process(data_dir, "api", environment) as (url, api):
            api_key = admission.make_api_key(environment)
            yield Service(url, api_key, environment, api, postgres)


@contextmanager
def api_process(
    data_dir: Path, name: str, environment: Mapping[str, str]
) -> Iterator[tuple[str, psutil.Process]]:
    """Run an API process at a port of its own for the length of a ``with`` block; its URL comes with it."""
    port = PortBook(data_dir / "ports.json").take([name])[name]
    url = f"http://{LOOPBACK}:{port}"
    command = [sys.executable, "-m", "api"]
    command += ["--host", LOOPBACK, "--port", str(port)]
    with started(command, environment, data_dir / f"{name}.log") as api:
        _await_ready(url, api)
        yield url, psutil.Process(api.pid)


@contextmanager
def started(
    command: list[str], environment: Mapping[str, str], log: Path
) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a process for the length of a ``with`` block, then ask it to end."""
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=REPOSITORY, env=environment, stdout=output, stderr=output)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _base_environment() -> dict[str, str]:
    kept = ("PATH", "HOME", "TMPDIR")
    return {name: os.environ[name] for name in kept if name in os.environ} | {"PYTHONPATH": str(REPOSITORY)}


def _await_ready(url: str, api: "subprocess.Popen[bytes]") -> None:
    deadline = monotonic() + READY_SECONDS
    while True:
        try:
            if httpx.get(f"{url}/readyz", trust_env=False).status_code == 200:
                return
        except httpx.TransportError:
            pass
        if api.poll() is not None or monotonic() > deadline:
            raise SystemExit("the API did not start; its log is in the data folder")
        sleep(0.1)
