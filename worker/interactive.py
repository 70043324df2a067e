"""The Celery worker of generations: ``python -m celery -A worker.interactive worker``.

It consumes a queue of its own, so that whoever waits for a picture waits for no training, and no training
waits for a picture. As in `worker.app` a message is only a hint. A thread tells the database that the worker
is there: that is how pages know whether anybody could draw.
"""

import logging
import os
import socket
import threading
from functools import lru_cache

from celery import signals

from store import logs
from store.database import Engine, create_engine, server_now, transaction
from store.errors import UnavailableError
from store.interactive_workers import announce_worker, withdraw_worker
from store.objects import ObjectStore
from store.queue import DRAW_TASK, make_celery
from store.settings import get_settings
from worker.drawer import Drawer
from worker.interactive_supervisor import InteractiveSupervisor

logger = logging.getLogger(__name__)

BEATS_A_LEASE = 4

stopping = threading.Event()
worker_name = f"{socket.gethostname()}:{os.getpid()}"
app = make_celery(get_settings().redis_url)
app.conf.update(
    broker_connection_retry_on_startup=True,
    broker_connection_max_retries=None,
    task_acks_late=False,
    task_default_queue=get_settings().interactive_queue,
    worker_concurrency=1,
    worker_disable_prefetch=True,
    worker_pool="threads",
    worker_prefetch_multiplier=1,
)


@signals.setup_logging.connect(weak=False)
def _configure_logging(**_: object) -> None:
    """Log in the service's shape; that somebody listens keeps Celery from configuring its own."""
    logs.configure("interactive", get_settings())


@signals.worker_ready.connect(weak=False)
def _be_seen(**_: object) -> None:
    threading.Thread(target=keep_announced, args=(make_engine(), stopping), name="presence").start()


@signals.worker_shutting_down.connect(weak=False)
def _stop(**_: object) -> None:
    stopping.set()


@signals.worker_shutdown.connect(weak=False)
def _end_drawer(**_: object) -> None:
    make_drawer().close()


def keep_announced(engine: Engine, stop: threading.Event) -> None:
    """Tell the database that this worker is there, until it stops; the body of a thread."""
    pause = get_settings().interactive_lease_seconds / BEATS_A_LEASE
    while not stop.is_set():
        try:
            with transaction(engine) as session:
                announce_worker(session, name=worker_name, now=server_now(session))
        except UnavailableError as error:
            logger.warning("not announced: %s", error.detail)
        stop.wait(pause)
    try:
        with transaction(engine) as session:
            withdraw_worker(session, name=worker_name)
    except UnavailableError as error:  # it is forgotten by itself
        logger.warning("not withdrawn: %s", error.detail)


@lru_cache(maxsize=1)
def make_engine() -> Engine:
    """Make the connections of this process, once."""
    return create_engine(get_settings())


@lru_cache(maxsize=1)
def make_drawer() -> Drawer:
    """Make the drawer of this process, once; its process begins with the first generation."""
    return Drawer(get_settings())


@lru_cache(maxsize=1)
def make_supervisor() -> InteractiveSupervisor:
    """Make the supervisor of this process, once, when the first generation arrives."""
    settings = get_settings()
    return InteractiveSupervisor(
        engine=make_engine(),
        objects=ObjectStore(settings),
        settings=settings,
        worker=worker_name,
        drawer=make_drawer(),
    )


@app.task(name=DRAW_TASK)
def draw() -> None:
    """Draw what waits."""
    make_supervisor().run_all(stopping)
