"""The Celery worker: ``python -m celery -A worker.app worker``.

A message is acknowledged before the job begins: the lease in Postgres, not the broker, decides whether a job
is being worked on, and the broker would deliver an unacknowledged message again after an hour. Nothing is
prefetched, so that waiting jobs stay free for idle workers. The task runs in a thread: the main thread keeps
answering the broker, and no process is forked. Tasks are never revoked with ``terminate``; a job is cancelled
in Postgres.

A warm shutdown (SIGTERM or SIGINT) waits for the running task. `worker_shutting_down` therefore sets
``stopping``, upon which the supervisor lets the trainer write a checkpoint and gives the job back.
"""

import logging
import os
import socket
import threading
from functools import lru_cache

from celery import signals
from kombu import Queue

from store import logs
from store.database import Engine, create_engine
from store.objects import ObjectStore
from store.queue import RUN_JOB_TASK, make_celery
from store.settings import get_settings
from worker import monitoring
from worker.announcer import Announcer
from worker.supervisor import Supervisor

logger = logging.getLogger(__name__)

HOST = socket.gethostname()
NAME = f"{HOST}:{os.getpid()}"

stopping = threading.Event()
app = make_celery(get_settings().redis_url)
app.conf.update(
    broker_connection_retry_on_startup=True,
    broker_connection_max_retries=None,
    task_acks_late=False,
    task_default_queue=get_settings().worker_queue,
    task_queues=[Queue(name) for name in (get_settings().worker_queue, *get_settings().lesser_queues)],
    worker_concurrency=1,
    worker_disable_prefetch=True,
    worker_pool="threads",
    worker_prefetch_multiplier=1,
)


@signals.setup_logging.connect(weak=False)
def _configure_logging(**_: object) -> None:
    """Log in the service's shape; that somebody listens keeps Celery from configuring its own."""
    logs.configure("worker", get_settings())


@signals.worker_init.connect(weak=False)
def _serve_metrics(**_: object) -> None:
    monitoring.serve(get_settings())


@signals.worker_init.connect(weak=False)
def _announce(**_: object) -> None:
    make_announcer().start()


@signals.worker_shutting_down.connect(weak=False)
def _stop(**_: object) -> None:
    stopping.set()


@signals.worker_shutdown.connect(weak=False)
def _sign_off(**_: object) -> None:
    make_announcer().stop()


@lru_cache(maxsize=1)
def make_engine() -> Engine:
    """Make this process's connections to the database, once."""
    return create_engine(get_settings())


@lru_cache(maxsize=1)
def make_announcer() -> Announcer:
    """Make what tells of this worker, once."""
    return Announcer(make_engine(), get_settings(), name=NAME, host=HOST)


@lru_cache(maxsize=1)
def make_supervisor() -> Supervisor:
    """Make the supervisor of this process, once, when the first job arrives."""
    settings = get_settings()
    return Supervisor(
        engine=make_engine(),
        objects=ObjectStore(settings),
        settings=settings,
        worker=NAME,
    )


@app.task(name=RUN_JOB_TASK)
def run_job(job_id: str) -> None:
    """Work on the job whose turn it is, if any waits; the message names the one it was sent for."""
    outcome = make_supervisor().run(stopping)
    logger.info("hint of job %s: %s", job_id, outcome)
