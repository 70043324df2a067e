"""The service's own processes on top of the servers: migrations, the API, and workers for jobs and pictures.

They are started by their command lines, as an operator would; this package imports none of their code.
"""

import os
import socket
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import httpx

from embedded import processes
from embedded.first_key import KEY_FILE, ensure_first_key
from embedded.ports import LOOPBACK, PortBook
from embedded.processes import Command
from embedded.server import Site
from embedded.state import Stack

REPOSITORY = Path(__file__).resolve().parent.parent
READY_SECONDS = 60.0
# A worker that is told to stop lets its trainer write a checkpoint first, for so long unless
# CANCEL_GRACE_SECONDS says otherwise; then it uploads that, as docker-compose.yml has it too.
TRAINER_GRACE_SECONDS = 120.0
UPLOAD_GRACE_SECONDS = 180.0


def start_services(
    stack: Stack, site: Site, environ: Mapping[str, str], report: Callable[[str], None]
) -> Stack:
    """Migrate the database, then start the API and a worker and wait until both answer."""
    if not environ.get("API_KEY_PEPPER") and not environ.get("API_KEY_PEPPER_FILE"):
        stack = stack.with_variable("API_KEY_PEPPER", site.credentials.api_key_pepper)
    environment = {**environ, **stack.environment()}
    report("database: migrating")
    _migrate(site, environment)

    report("api: starting")
    port = PortBook(site.data_dir / "ports.json").take(["api"])["api"]
    api_url = f"http://{LOOPBACK}:{port}"
    # Whoever opens the dashboard on this machine is its owner; the key is made once the API answers.
    of_api = {"DASHBOARD_KEY_FILE": str((site.data_dir / KEY_FILE).resolve()), **environment}
    stack = _start(stack, _api_command(site, of_api, port), lambda: _answers(f"{api_url}/readyz"))
    ensure_first_key(site.data_dir, api_url, environment)

    # Nobody waits for it: it begins to load a model when somebody first asks for a picture.
    stack = _spawn(stack, _interactive_command(site, environment))

    report("worker: starting")
    node = f"condenser-{os.getpid()}@{socket.gethostname()}"
    stack = _start(
        stack,
        _worker_command(site, environment, node),
        lambda: _consumes(environment["REDIS_URL"], node),
    )

    stack = stack.model_copy(update={"api_url": api_url})
    stack.save()
    return stack


def _migrate(site: Site, environment: Mapping[str, str]) -> None:
    arguments = [sys.executable, "-m", "alembic", "-c", str(REPOSITORY / "alembic.ini"), "upgrade", "head"]
    processes.run(
        Command("migrations", arguments, REPOSITORY, site.log("migrations"), environment),
        mark=str(site.data_dir),
    )


def _api_command(site: Site, environment: Mapping[str, str], port: int) -> Command:
    arguments = [sys.executable, "-m", "api", "--host", LOOPBACK, "--port", str(port)]
    return Command(
        "api",
        arguments,
        folder=REPOSITORY,
        log=site.log("api"),
        environment=environment,
        grace_seconds=30,  # `api.serving` gives open requests 20 of them
    )


def _worker_command(site: Site, environment: Mapping[str, str], node: str) -> Command:
    arguments = [
        *(sys.executable, "-m", "celery", "-A", "worker.app", "--quiet"),
        *("worker", "--hostname", node),
        *("--loglevel", "INFO", "--without-gossip", "--without-mingle"),
    ]
    return Command(
        "worker",
        arguments,
        folder=REPOSITORY,
        log=site.log("worker"),
        environment=environment,
        grace_seconds=worker_grace(environment),
    )


def worker_grace(environment: Mapping[str, str]) -> float:
    """Return the seconds that a worker has to end."""
    return float(environment.get("CANCEL_GRACE_SECONDS") or TRAINER_GRACE_SECONDS) + UPLOAD_GRACE_SECONDS


def _interactive_command(site: Site, environment: Mapping[str, str]) -> Command:
    """Draw on the processor unless the user says otherwise: the accelerator is the trainings'."""
    arguments = [
        *(sys.executable, "-m", "celery", "-A", "worker.interactive", "--quiet"),
        *("worker", "--hostname", f"condenser-interactive-{os.getpid()}@{socket.gethostname()}"),
        *("--loglevel", "INFO", "--without-gossip", "--without-mingle"),
    ]
    return Command(
        "interactive",
        arguments,
        folder=REPOSITORY,
        log=site.log("interactive"),
        environment={"INTERACTIVE_DEVICE": "cpu", **environment},
    )


def _start(stack: Stack, command: Command, ready: Callable[[], bool]) -> Stack:
    stack = _spawn(stack, command)
    processes.await_ready(stack.processes[-1], command, ready, READY_SECONDS)
    return stack


def _spawn(stack: Stack, command: Command) -> Stack:
    record = processes.spawn(command, mark=str(stack.data_dir))
    stack = stack.model_copy(update={"processes": [*stack.processes, record]})
    stack.save()
    return stack


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, trust_env=False, timeout=5).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False


def _consumes(broker_url: str, node: str) -> bool:
    """Ask a worker over the broker whether it is there; it answers while it works, too."""
    from celery import Celery  # takes a while to import, and servers alone need none of it

    with Celery(broker=broker_url, set_as_current=False) as celery:
        return bool(celery.control.ping(destination=[node], timeout=1))
