"""A supervisor on real servers with a small real trainer."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from core.spec import DistillationSpec
from store.database import server_now, transaction
from store.events import list_events
from store.jobs import create_job, get_job
from store.models import Job, JobEvent
from store.objects import ObjectStore
from store.settings import Settings
from worker.attempt import Rhythm
from worker.conclusion import Outcome
from worker.supervisor import Supervisor

SMALL_TRAINER = Path(__file__).with_name("small_trainer.py")


class Workplace:
    """What a test needs to run jobs and to look at them."""

    def __init__(self, engine: Engine, objects: ObjectStore, settings: Settings) -> None:
        self.engine = engine
        self.objects = objects
        self.settings = settings.model_copy(update={"heartbeat_seconds": 0.05, "cancel_grace_seconds": 10})
        self.stop = threading.Event()
        self.pool = ThreadPoolExecutor(4)

    def submit_job(self) -> str:
        with transaction(self.engine) as session:
            spec = DistillationSpec(teacher="emoji-64")
            return create_job(session, spec=spec, queue="cpu", now=server_now(session)).id

    def supervisor(self, behaviour: str, **changes: Any) -> Supervisor:
        def command(spec: Path, work_dir: Path) -> list[str]:
            return [sys.executable, "-I", str(SMALL_TRAINER), behaviour, str(spec), str(work_dir)]

        return Supervisor(
            engine=self.engine,
            objects=self.objects,
            settings=self.settings.model_copy(update=changes),
            worker="test",
            command=command,
            rhythm=Rhythm(poll=0.02, record=0.02, retry=0.05),
        )

    def run(self, job_id: str, behaviour: str, **changes: Any) -> Outcome:
        return self.supervisor(behaviour, **changes).run(job_id, self.stop)

    def begin(self, job_id: str, behaviour: str, **changes: Any) -> "Future[Outcome]":
        return self.pool.submit(self.run, job_id, behaviour, **changes)

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
            if str(SMALL_TRAINER).encode() in arguments and str(said.parent.resolve()).encode() in arguments:
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
        # A Celery worker may first have to start, on a machine that other tests keep busy.
        eventually(lambda: 2 in workplace.stored_steps(job_id), timeout_seconds=60)
        if step == 4:
            send_on(job_id, 3)
            eventually(lambda: 4 in workplace.stored_steps(job_id))
        return eventually(lambda: workplace.trainer_pid(job_id))

    return wait
