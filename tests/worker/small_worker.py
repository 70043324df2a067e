"""The real Celery worker with the small trainer: ``celery -A small_worker worker``."""

import os
import sys
from pathlib import Path

import worker.app
from store.database import create_engine
from store.objects import ObjectStore
from store.settings import get_settings
from worker.attempt import Rhythm
from worker.supervisor import Supervisor

_settings = get_settings()
_supervisor = Supervisor(
    engine=create_engine(_settings),
    objects=ObjectStore(_settings),
    settings=_settings,
    worker=worker.app.NAME,
    command=lambda spec, work_dir: [
        sys.executable,
        "-I",
        str(Path(__file__).with_name("small_trainer.py")),
        os.environ.get("SMALL_TRAINER_BEHAVIOUR", "pauses"),
        str(spec),
        str(work_dir),
    ],
    rhythm=Rhythm(poll=0.02, record=0.02, retry=0.05),
)
worker.app.make_supervisor = lambda: _supervisor  # type: ignore[assignment]
app = worker.app.app
