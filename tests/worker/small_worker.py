"""The real Celery worker with the small trainer: ``celery -A small_worker worker``."""

import os
import sys
from functools import lru_cache
from pathlib import Path

import worker.app
from store.objects import ObjectStore
from worker.attempt import Rhythm
from worker.supervisor import Supervisor


@lru_cache(maxsize=1)
def make_supervisor() -> Supervisor:
    settings = worker.app.worker_settings()
    return Supervisor(
        engine=worker.app.process.engine,
        objects=ObjectStore(settings),
        settings=settings,
        worker=worker.app.process.name,
        command=lambda spec, work_dir: [
            sys.executable,
            "-I",
            str(Path(__file__).with_name("small_trainer.py")),
            os.environ.get("SMALL_TRAINER_BEHAVIOUR", "pauses"),
            str(spec),
            str(work_dir),
        ],
        rhythm=Rhythm(poll=0.02, report=0.02, retry=0.05, recovery=0.02),
    )


worker.app.make_supervisor = make_supervisor
app = worker.app.app
