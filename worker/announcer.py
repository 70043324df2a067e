"""Tells the database of this worker, from its start to its end, whether it works or waits.

A thread of its own, so that a worker that waits for work gives signs of life too. What it writes decides
nothing (`store.workers`); a database that is away is told at the next beat.
"""

import logging
import threading
from datetime import datetime

from store.database import Engine, server_now, transaction
from store.errors import UnavailableError
from store.passes import make_passes
from store.workers import Announcement, announce, sign_off

logger = logging.getLogger(__name__)

_LAST_WORD_SECONDS = 30.0


class Announcer:
    """Gives a worker's signs of life, from when it is made.

    Parameters
    ----------
    engine
        The database.
    told
        What it says of the worker.
    beat_seconds
        Pause between two beats.
    """

    def __init__(self, engine: Engine, told: Announcement, *, beat_seconds: float) -> None:
        self._engine = engine
        self._told = told
        self._beat_seconds = beat_seconds
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="announcer", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Take the worker's row away, as it ends."""
        self._over.set()
        self._thread.join(_LAST_WORD_SECONDS)

    def _run(self) -> None:
        started_at: datetime | None = None

        def beat() -> None:
            nonlocal started_at
            with transaction(self._engine) as session:
                now = server_now(session)
                started_at = started_at or now
                announce(session, self._told, started_at=started_at, now=now)

        make_passes(beat, self._over, name="no sign of life", pause_seconds=self._beat_seconds)
        try:
            with transaction(self._engine) as session:
                sign_off(session, self._told.name)
        except UnavailableError as error:
            logger.warning("the worker's row is left to be forgotten: %s", error.detail)
