"""The real Celery worker with the small trainer: ``celery -A small_worker worker``.

Its clock, and its trainer's, is ``CLOCK_OFFSET_HOURS`` off where the environment says so.
"""

import os
import sys
from datetime import timedelta
from functools import lru_cache
from pathlib import Path

import time_machine

import worker.app
from store.objects import ObjectStore
from worker.attempt import Rhythm
from worker.supervisor import Supervisor

if offset_hours := os.environ.get("CLOCK_OFFSET_HOURS"):
    time_machine.travel(timedelta(hours=float(offset_hours))).start()


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
