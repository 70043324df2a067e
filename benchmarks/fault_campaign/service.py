"""The service under attack: servers of its own, an API process, workers on hosts of their own.

Every part can be killed and started again. The trainer is the small one of the tests: it does with files,
events and signals what the real one does, and its student lists the steps that it has learnt.
"""

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import httpx
import psutil

from benchmarks import admission
from embedded.ports import PortBook
from store.settings import Settings
from tests.faults.servers import REPOSITORY, OwnServers

SMALL_WORKER = REPOSITORY / "tests" / "worker"
TRAINER = "small_trainer.py"
LEASE_SECONDS = 4.0
RECONCILE_SECONDS = 0.25
MAX_ATTEMPTS = 5


class Service:
    """Servers, one API process and some workers.

    Parameters
    ----------
    folder
        Everything is below it.
    teachers
        Folder of the teacher that jobs name.
    workers
        How many workers there are.
    step_seconds
        What each of the six steps of a trainer takes.
    """

    def __init__(self, folder: Path, teachers: Path, *, workers: int, step_seconds: float) -> None:
        self.folder = folder
        self.servers = OwnServers(folder / "stack")
        self.servers.start()
        self.servers.migrate()
        self.environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": f"{SMALL_WORKER}:{REPOSITORY}",
            "SMALL_TRAINER_BEHAVIOUR": "slow",
            "SMALL_TRAINER_STEP_SECONDS": str(step_seconds),
            "TEACHERS_DIRS": str(teachers),
            "LEASE_SECONDS": str(LEASE_SECONDS),
            "HEARTBEAT_SECONDS": "0.3",
            "RECONCILE_SECONDS": str(RECONCILE_SECONDS),
            "CANCEL_GRACE_SECONDS": "5",
            "MAX_ATTEMPTS": str(MAX_ATTEMPTS),
            "DATA_DIR": str(folder / "api"),
            **admission.VARIABLES,
            **self.servers.environment(),
        }
        self.settings = Settings.model_validate({k.lower(): v for k, v in self.environment.items()})
        port = PortBook(folder / "ports.json").take(["api"])["api"]
        self.http = httpx.Client(
            base_url=f"http://127.0.0.1:{port}",
            headers={"Authorization": f"Bearer {admission.make_api_key(self.environment)}"},
            timeout=20,
            trust_env=False,
        )
        self._port = port
        self.api: subprocess.Popen[bytes] | None = None
        self.workers: dict[int, subprocess.Popen[bytes]] = {}
        self.hosts = range(workers)
        self.cancel_asked: set[str] = set()

    def start_api(self) -> None:
        """Start the API unless it runs; it may take a while to answer."""
        if self.api is None or self.api.poll() is not None:
            self.api = self._spawn(["api", "--port", str(self._port)], "api", {})

    def start_worker(self, host: int) -> None:
        """Start the worker of a host unless it runs."""
        if host not in self.workers or self.workers[host].poll() is not None:
            command = ["celery", "-A", "small_worker", "worker", "--loglevel", "INFO"]
            changes = {"DATA_DIR": str(self.folder / f"host-{host}")}
            self.workers[host] = self._spawn(command, f"worker-{host}", changes)

    def _spawn(self, command: list[str], log: str, changes: dict[str, str]) -> "subprocess.Popen[bytes]":
        with (self.folder / f"{log}.log").open("ab") as output:
            return subprocess.Popen(
                [sys.executable, "-m", *command],
                env=self.environment | changes,
                cwd=self.folder,
                stdout=output,
                stderr=output,
            )

    def trainers(self) -> list[psutil.Process]:
        """The trainers that run, in the order of their hosts."""
        found = []
        for host in self.hosts:
            with suppress(psutil.NoSuchProcess, KeyError):
                children = psutil.Process(self.workers[host].pid).children(recursive=True)
                found += [child for child in children if any(TRAINER in part for part in child.cmdline())]
        return found

    def answers(self) -> bool:
        """Whether the API and all its servers answer."""
        try:
            return self.http.get("/readyz").is_success
        except httpx.TransportError:
            return False

    def heal(self) -> None:
        """Wake, restart and start whatever was stopped or killed."""
        for worker in self.workers.values():
            if worker.poll() is None:
                worker.send_signal(signal.SIGCONT)
        self.servers.start()
        self.start_api()
        for host in self.hosts:
            self.start_worker(host)

    def stop(self) -> None:
        """End everything."""
        started = [*self.workers.values(), *([self.api] if self.api else [])]
        for process in started:
            process.kill()
            process.wait()
        self.http.close()
        self.servers.stop()
