"""Tells the database of this worker, from its start to its end, whether it has a job or not.

A thread of its own, so that a worker that waits for jobs gives signs of life too. What it writes decides
nothing (`store.workers`); a database that is away is told at the next beat.
"""

import logging
import threading
from datetime import datetime
from importlib.metadata import version

from store.database import Engine, server_now, transaction
from store.errors import UnavailableError
from store.settings import Settings
from store.workers import Announcement, announce, sign_off
from worker.device import find_device

logger = logging.getLogger(__name__)

_LAST_WORD_SECONDS = 30.0


class Announcer:
    """Gives a worker's signs of life.

    Parameters
    ----------
    engine, settings
        The database; the queue, and the pause between two beats.
    name, host
        The worker's, and that of the machine it runs on.
    """

    def __init__(self, engine: Engine, settings: Settings, *, name: str, host: str) -> None:
        self._engine = engine
        self._settings = settings
        self._name = name
        self._host = host
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="announcer", daemon=True)

    def start(self) -> None:
        """Begin to tell of the worker."""
        self._thread.start()

    def stop(self) -> None:
        """Take the worker's row away, as it ends."""
        self._over.set()
        self._thread.join(_LAST_WORD_SECONDS)

    def _run(self) -> None:
        told = self._describe()
        started_at: datetime | None = None
        while not self._over.is_set():
            try:
                with transaction(self._engine) as session:
                    now = server_now(session)
                    started_at = started_at or now
                    announce(session, told, started_at=started_at, now=now)
            except UnavailableError as error:
                logger.warning("no sign of life: %s", error.detail)
            self._over.wait(self._settings.heartbeat_seconds)
        try:
            with transaction(self._engine) as session:
                sign_off(session, self._name)
        except UnavailableError as error:
            logger.warning("the worker's row is left to be forgotten: %s", error.detail)

    def _describe(self) -> Announcement:
        device = find_device()
        return Announcement(
            name=self._name,
            host=self._host,
            queue=self._settings.worker_queue,
            release=version("condenser"),
            device=device.name,
            device_count=device.count,
            memory_bytes=device.memory_bytes,
        )
