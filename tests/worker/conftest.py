"""A supervisor on real servers with a small real trainer."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from core.spec import DistillationSpec
from store.database import Clock, server_now, transaction
from store.events import list_events
from store.job_options import JobOptions
from store.job_queries import get_job
from store.jobs import create_job
from store.models import Job, JobEvent
from store.objects import ObjectStore
from store.reconciler import Reconciled, reconcile_once
from store.settings import Settings
from tests.worker.doors import Door
from worker.attempt import Rhythm
from worker.conclusion import Outcome
from worker.supervisor import Supervisor

FOLDER = Path(__file__).parent
SMALL_TRAINER = FOLDER / "small_trainer.py"


class Workplace:
    """What a test needs to run jobs and to look at them."""

    def __init__(self, engine: Engine, objects: ObjectStore, settings: Settings) -> None:
        self.engine = engine
        self.objects = objects
        self.settings = settings.model_copy(update={"heartbeat_seconds": 0.05, "cancel_grace_seconds": 10})
        self.stop = threading.Event()
        self.pool = ThreadPoolExecutor(4)

    def submit_job(self, *, queue: str = "cpu", **options: Any) -> str:
        with transaction(self.engine) as session:
            spec = DistillationSpec(teacher="emoji-64")
            now = server_now(session)
            return create_job(session, spec=spec, options=JobOptions(**options), queue=queue, now=now).id

    def supervisor(
        self,
        behaviour: str,
        clock: Clock = server_now,
        find_lack: Callable[[], str | None] = lambda: None,
        **changes: Any,
    ) -> Supervisor:
        def command(spec: Path, work_dir: Path) -> list[str]:
            return [sys.executable, "-I", str(SMALL_TRAINER), behaviour, str(spec), str(work_dir)]

        return Supervisor(
            engine=self.engine,
            objects=self.objects,
            settings=self.settings.model_copy(update=changes),
            worker="test",
            command=command,
            clock=clock,
            rhythm=Rhythm(poll=0.02, report=0.02, retry=0.05, recovery=0.02),
            find_lack=find_lack,
        )

    def run(self, behaviour: str, **changes: Any) -> Outcome:
        """Let a worker take the next job and work on it."""
        return self.supervisor(behaviour, **changes).run(self.stop)

    def begin(self, behaviour: str, **changes: Any) -> "Future[Outcome]":
        return self.pool.submit(self.run, behaviour, **changes)

    def reconcile(self, later: timedelta) -> Reconciled:
        """Make the reconciler's pass as it would be so much later."""
        with transaction(self.engine) as session:
            now = server_now(session)
        report = reconcile_once(self.engine, self.settings, now + later)
        assert report is not None
        return report

    def take_back(self, job_id: str, eventually: Callable[..., Any]) -> Reconciled:
        """Make the reconciler's pass as of the end of all leases, until it takes back this job alone.

        A worker that was stopped or killed amid a transaction holds the job's row, which a pass goes by,
        until Postgres has ended that transaction.
        """
        lease = timedelta(seconds=self.settings.lease_seconds + 1)
        passes: list[Reconciled] = []

        def takes_back() -> bool:
            passes.append(self.reconcile(lease))
            return bool(passes[-1].taken_back)

        eventually(takes_back)
        assert passes[-1].taken_back == [job_id]
        return passes[-1]

    def job(self, job_id: str) -> Job:
        with transaction(self.engine) as session:
            return get_job(session, job_id)

    def events(self, job_id: str) -> list[JobEvent]:
        with transaction(self.engine) as session:
            return list_events(session, job_id, limit=1_000).items

    def stored_steps(self, job_id: str) -> set[int]:
        return {event.data["step"] for event in self.events(job_id) if event.type == "checkpoint"}

    def trainer_said(self, job_id: str) -> str:
        """What the trainer that now works on a job has written to its event file."""
        attempt = self.job(job_id).attempt
        said = self.settings.work_dir / job_id / str(attempt) / "events.jsonl"
        return said.read_text() if said.exists() else ""

    @staticmethod
    def is_gone(pid: int) -> bool:
        """Tell whether a process has ended, even if nobody has asked for its exit code yet."""
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
        except (FileNotFoundError, ProcessLookupError):
            return True

    def trainer_pid(self, job_id: str) -> int | None:
        """Process of the trainer that now works on a job, once it has said something."""
        attempt = self.job(job_id).attempt
        said = self.settings.work_dir / job_id / str(attempt) / "events.jsonl"
        if not said.exists():
            return None
        for entry in Path("/proc").iterdir():
            try:
                arguments = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            is_trainer = any(argument.endswith(SMALL_TRAINER.name.encode()) for argument in arguments)
            if is_trainer and str(said.parent.resolve()).encode() in arguments:
                return int(entry.name)
        return None


@pytest.fixture
def workplace(engine: Engine, object_store: ObjectStore, settings: Settings) -> Iterator[Workplace]:
    place = Workplace(engine, object_store, settings)
    yield place
    place.stop.set()
    place.pool.shutdown()


@pytest.fixture
def send_on(workplace: Workplace, eventually: Callable[..., Any]) -> Callable[[str, int], None]:
    """Lets a trainer go on that pauses at a step, once it does."""

    def send(job_id: str, step: int) -> None:
        eventually(lambda: f"pauses at step {step}" in workplace.trainer_said(job_id))
        trainer = workplace.trainer_pid(job_id)
        assert trainer is not None
        os.kill(trainer, signal.SIGUSR1)

    return send


@pytest.fixture
def at_step(
    workplace: Workplace, send_on: Callable[[str, int], None], eventually: Callable[..., Any]
) -> Callable[[str, int], int]:
    """Waits until the checkpoint of step 2 or 4 is stored, and returns the trainer's process."""

    def wait(job_id: str, step: int) -> int:
        eventually(lambda: 2 in workplace.stored_steps(job_id))
        if step == 4:
            send_on(job_id, 3)
            eventually(lambda: 4 in workplace.stored_steps(job_id))
        return eventually(lambda: workplace.trainer_pid(job_id))

    return wait


@pytest.fixture
def start_worker(
    service_environment: dict[str, str], object_store: object, tmp_path: Path
) -> Iterator[Callable[..., "subprocess.Popen[bytes]"]]:
    """Starts a real Celery worker with the small trainer; the n-th one's log is worker-n.log, from 0 up."""
    workers: list[subprocess.Popen[bytes]] = []
    # The test process is itself under coverage or xdist; the worker gets only what a worker needs.
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": f"{FOLDER}:{FOLDER.parents[1]}",
        "HEARTBEAT_SECONDS": "0.05",
        **service_environment,
    }

    def start(**changes: str) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-m", "celery", "-A", "small_worker", "worker", "--loglevel=INFO"]
        with (tmp_path / f"worker-{len(workers)}.log").open("wb") as log:
            process = subprocess.Popen(
                command, env=environment | changes, stdout=log, stderr=log, cwd=tmp_path
            )
        workers.append(process)
        return process

    yield start
    for number, process in enumerate(workers):
        process.kill()
        process.wait()
        # pytest shows this with a test that failed, and only then.
        sys.stdout.write(f"worker-{number}.log:\n{(tmp_path / f'worker-{number}.log').read_text()}")


@pytest.fixture
def nvidia_smi(tmp_path: Path) -> Path:
    """A driver's tool that answers as a real one does, and writes down what it was asked."""
    path = tmp_path / "driver" / "nvidia-smi"
    path.parent.mkdir()
    answer = "NVIDIA H100 80GB HBM3, 81559\n" * 2 + "NVIDIA A2, 15356\n"
    path.write_text(f"#!/bin/sh\necho \"$@\" > {path.parent}/asked\ncat <<'END'\n{answer}END\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def doors() -> Iterator[Callable[[str | None, int | None], Door]]:
    """Makes doors to servers, given by host and port."""
    made: list[Door] = []

    def make(host: str | None, port: int | None) -> Door:
        assert host is not None
        assert port is not None
        made.append(Door(host, port))
        return made[-1]

    yield make
    for door in made:
        door.shut()
