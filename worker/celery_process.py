"""A Celery worker process, whatever its role: its app, what it listens to, its signs of life and its end.

A message is acknowledged before the work begins: the lease in Postgres, not the broker, decides whether
something is being worked on, and the broker would deliver an unacknowledged message again after an hour.
Nothing is prefetched, so that what waits stays free for idle workers. Tasks run in a thread: the main thread
keeps answering the broker, and no process is forked. Tasks are never revoked with ``terminate``; work is
cancelled in Postgres.

A warm shutdown (SIGTERM or SIGINT) waits for the running task, which
``stopping`` tells to give its work back.
"""

import os
import socket
import sys
import threading
from collections.abc import Callable, Sequence
from functools import cached_property
from importlib.metadata import version

from celery import signals
from kombu import Queue

from store import logs
from store.database import Engine, create_engine
from store.models import WorkerRole
from store.queue import make_celery
from store.settings import get_settings
from store.workers import Announcement
from worker.announcer import Announcer
from worker.device import Device
from worker.own_class import UnfitDeviceError


class CeleryProcess:
    """What makes a worker of the process that imports a worker's module; one a process.

    Parameters
    ----------
    role
        What the worker does.
    log_name
        What its log lines say they come from.
    find_device
        Finds what it works on, as the worker starts.
    choose_queues
        Names the queues that it takes hints from, its own first, as the worker starts; `UnfitDeviceError`
        ends the process with what it says.
    beat_seconds
        Pause between two signs of life.

    Attributes
    ----------
    app
        The Celery app, for tasks.
    name
        By which the worker is known: host and process.
    stopping
        Set when the worker has to go.
    """

    def __init__(
        self,
        role: WorkerRole,
        *,
        log_name: str,
        find_device: Callable[[], Device],
        choose_queues: Callable[[], Sequence[str]],
        beat_seconds: float,
    ) -> None:
        self._role = role
        self._log_name = log_name
        self._find_device = find_device
        self._choose_queues = choose_queues
        self._beat_seconds = beat_seconds
        self._host = socket.gethostname()
        self.name = f"{self._host}:{os.getpid()}"
        self.stopping = threading.Event()
        self.app = make_celery(get_settings().redis_url)
        self.app.conf.update(
            broker_connection_retry_on_startup=True,
            broker_connection_max_retries=None,
            task_acks_late=False,
            worker_concurrency=1,
            worker_disable_prefetch=True,
            worker_pool="threads",
            worker_prefetch_multiplier=1,
        )
        signals.celeryd_init.connect(self._listen, weak=False)
        signals.setup_logging.connect(self._configure_logging, weak=False)
        signals.worker_init.connect(self._announce, weak=False)
        signals.worker_shutting_down.connect(self._stop, weak=False)

    @cached_property
    def device(self) -> Device:
        """What the worker works on."""
        return self._find_device()

    @cached_property
    def engine(self) -> Engine:
        """Connections to the database."""
        return create_engine(get_settings())

    def _listen(self, **_: object) -> None:
        try:
            queues = self._choose_queues()
        except UnfitDeviceError as error:
            sys.exit(str(error))
        self.app.conf.update(task_default_queue=queues[0], task_queues=[Queue(name) for name in queues])

    def _configure_logging(self, **_: object) -> None:
        """Log in the service's shape; that somebody listens keeps Celery from configuring its own."""
        logs.configure(self._log_name, get_settings())

    def _announce(self, **_: object) -> None:
        told = Announcement(
            name=self.name,
            role=self._role,
            host=self._host,
            queue=self.app.conf.task_default_queue,
            release=version("condenser"),
            device=self.device.name,
            device_count=self.device.count,
            memory_bytes=self.device.memory_bytes,
        )
        announcer = Announcer(self.engine, told, beat_seconds=self._beat_seconds)
        signals.worker_shutdown.connect(lambda **_: announcer.stop(), weak=False)

    def _stop(self, **_: object) -> None:
        self.stopping.set()
