"""The move that ends an attempt, made however long the database is away.

An outcome must not be lost because Postgres restarts at the wrong moment, so a move is repeated until it is
made or refused. One whose commit was in doubt and had succeeded is refused the second time, as the lease has
ended with it: the job is then where it should be.
"""

import threading
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any, Literal, TypeVar

from store import jobs
from store.database import Clock, Engine, Session, transaction
from store.endings import Ending
from store.errors import UnavailableError
from store.models import Reason, Status
from store.settings import Settings
from worker.job_log import JobLogger

Outcome = Literal["not_claimed", "succeeded", "failed", "cancelled", "paused", "queued", "lease_lost"]
T = TypeVar("T")

_PAUSE_SECONDS = 1.0
_AFTER_RELEASE: dict[Status, Outcome] = {
    "queued": "queued",
    "paused": "paused",
    "failed": "failed",
    "cancelled": "cancelled",
}


class Conclusion:
    """The ways in which an attempt can end; each returns what became of the job.

    Parameters
    ----------
    engine, settings
        The database; the processes and the attempts that a job has, and the grace of a worker that has to go.
    claim
        The lease.
    stop
        Set when the worker has to go: it waits no longer than the grace, and the lease then ends by itself.
    clock
        Tells the time within a transaction.
    logger
        Log of the attempt.

    Attributes
    ----------
    is_crash
        Whether it ended in a way that another one may not.
    """

    def __init__(
        self,
        *,
        engine: Engine,
        settings: Settings,
        claim: jobs.Claim,
        stop: threading.Event,
        clock: Clock,
        logger: JobLogger,
    ) -> None:
        self._engine = engine
        self._settings = settings
        self._lease: dict[str, Any] = {"job_id": claim.job_id, "lease_token": claim.lease_token}
        self._stop = stop
        self._clock = clock
        self._logger = logger
        self.is_crash = False

    def succeed(self, result: dict[str, Any]) -> Outcome:
        """The student is stored."""
        self._move(lambda session, now: jobs.finish_succeeded(session, **self._lease, result=result, now=now))
        return "succeeded"

    def fail(self, ending: Ending) -> Outcome:
        """Another attempt would fail in the same way."""
        self._move(lambda session, now: jobs.finish_failed(session, **self._lease, ending=ending, now=now))
        return "failed"

    def release(self) -> Outcome:
        """The job was asked to stop, or the worker has to go."""
        status = self._move(lambda session, now: jobs.release_to_queue(session, **self._lease, now=now))
        return _AFTER_RELEASE[status]

    def crash(self, message: str, reason: Reason = "trainer_crashed") -> Outcome:
        """The attempt ended in a way that another one may not."""
        self.is_crash = True
        self._logger.error("%s", message)
        limit = self._settings.max_attempts
        status = self._move(
            lambda session, now: jobs.release_after_crash(
                session, **self._lease, message=message, max_attempts=limit, now=now, reason=reason
            )
        )
        return _AFTER_RELEASE[status]

    def out_of_memory(self, ending: Ending) -> Outcome:
        """The memory was too small for the attempt; a smaller micro-batch may help."""
        self._logger.error("%s", ending.message)
        processes, limit = self._settings.worker_processes, self._settings.max_attempts
        status = self._move(
            lambda session, now: jobs.release_after_out_of_memory(
                session, **self._lease, ending=ending, processes=processes, max_attempts=limit, now=now
            )
        )
        return _AFTER_RELEASE[status]

    def insist(self, action: Callable[[], T]) -> T:
        """Do something with the database, again and again while it is away."""
        deadline: float | None = None
        while True:
            try:
                return action()
            except UnavailableError as error:
                self._logger.warning("the job's end is not recorded yet: %s", error.detail)
                if self._stop.is_set():
                    deadline = deadline or time.monotonic() + self._settings.cancel_grace_seconds
                    if time.monotonic() > deadline:
                        raise
                time.sleep(_PAUSE_SECONDS)

    def _move(self, move: Callable[[Session, datetime], T]) -> T:
        def once() -> T:
            with transaction(self._engine) as session:
                return move(session, self._clock(session))

        return self.insist(once)
