"""The worker of generations: ``python -m celery -A worker.interactive worker``.

It consumes a queue of its own, so that whoever waits for a picture waits for no training, and no training
waits for a picture. Pages know from its signs of life whether anybody could draw.
"""

import os
from functools import lru_cache

from celery import signals

from store.objects import ObjectStore
from store.queue import DRAW_TASK
from store.settings import get_settings
from worker.celery_process import CeleryProcess
from worker.device import Device, find_device
from worker.drawer import Drawer
from worker.interactive_supervisor import InteractiveSupervisor

BEATS_A_LEASE = 4


def _find_device() -> Device:
    hidden = {"CUDA_VISIBLE_DEVICES": ""} if get_settings().interactive_device == "cpu" else {}
    return find_device({**os.environ, **hidden})


process = CeleryProcess(
    "interactive",
    log_name="interactive",
    find_device=_find_device,
    choose_queues=lambda: [get_settings().interactive_queue],
    beat_seconds=get_settings().interactive_lease_seconds / BEATS_A_LEASE,
)
app = process.app


@signals.worker_shutdown.connect(weak=False)
def _end_drawer(**_: object) -> None:
    make_drawer().close()


@lru_cache(maxsize=1)
def make_drawer() -> Drawer:
    """Make the drawer of this process, once; its process begins with the first generation."""
    return Drawer(get_settings())


@lru_cache(maxsize=1)
def make_supervisor() -> InteractiveSupervisor:
    """Make the supervisor of this process, once, when the first generation arrives."""
    settings = get_settings()
    return InteractiveSupervisor(
        engine=process.engine,
        objects=ObjectStore(settings),
        settings=settings,
        worker=process.name,
        drawer=make_drawer(),
    )


@app.task(name=DRAW_TASK)
def draw() -> None:
    """Draw what waits."""
    make_supervisor().run_all(process.stopping)
