"""One thread that moves files between the work folder and the object store.

Transfers run in the order they were asked for, while the supervisor goes on reading events and keeping its
lease. A transfer meets servers that are away with patience: it is repeated until it works, its time is up or
the lease is lost. It must therefore be repeatable.
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from store.errors import CondenserError, LeaseLostError, UnavailableError
from worker.job_log import JobLogger
from worker.monitoring import TRANSFERS

_FIRST_PAUSE_SECONDS = 0.2
_LONGEST_PAUSE_SECONDS = 15.0


@dataclass
class Transfer:
    """A piece of work for the transfer thread.

    Attributes
    ----------
    name
        For the log.
    work
        What to do; may be called again after it raised `UnavailableError`.
    outdated_by
        A later transfer with the same mark makes this one needless if it has not begun yet.
    asked_at
        When it was submitted, on the monotonic clock.
    error
        Why it did not succeed, once ``finished`` is set.
    """

    name: str
    work: Callable[[], None]
    outdated_by: str | None = None
    asked_at: float = 0.0
    error: Exception | None = None
    finished: threading.Event = field(default_factory=threading.Event)


class Transfers:
    """The transfer thread of one attempt.

    Parameters
    ----------
    patience_seconds
        How long a server that is away is waited for: since it was first missed, and since the transfer was
        submitted. So those that pile up meanwhile are given up together, each after a last try.
    logger
        Log of the attempt.
    """

    def __init__(self, *, patience_seconds: float, logger: JobLogger) -> None:
        self.lease_lost = threading.Event()
        self._patience_seconds = patience_seconds
        self._hurry_until: float | None = None
        self._away_since: float | None = None
        self._logger = logger
        self._waiting: deque[Transfer] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._abandoned = threading.Event()
        self._thread = threading.Thread(target=self._run, name="transfers", daemon=True)
        self._thread.start()

    def submit(self, transfer: Transfer) -> Transfer:
        """Queue a transfer and return it."""
        transfer.asked_at = time.monotonic()
        with self._changed:
            self._waiting.append(transfer)
            self._changed.notify()
        return transfer

    def hurry(self, seconds: float) -> None:
        """Stop repeating anything later than so many seconds from now: the worker is about to go."""
        self._hurry_until = time.monotonic() + seconds

    def close(self) -> None:
        """Take no more transfers; the thread ends after those it has."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    def abandon(self) -> None:
        """Begin no further transfer and repeat none.

        A request in flight runs on for a little; it can write only under its attempt's own prefix.
        """
        self._abandoned.set()
        self.close()

    def join(self, seconds: float) -> None:
        """Wait for the thread's end, but not longer."""
        self._thread.join(seconds)

    @property
    def idle(self) -> bool:
        """Whether everything asked for after `close` has been done or given up."""
        return not self._thread.is_alive()

    def _run(self) -> None:
        while (transfer := self._next()) is not None:
            if self._abandoned.is_set():
                transfer.error = UnavailableError("The attempt is over.")
            elif self._is_outdated(transfer):
                transfer.error = UnavailableError("A later one takes its place.")
            else:
                transfer.error = self._repeat(transfer)
            transfer.finished.set()

    def _next(self) -> Transfer | None:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            return self._waiting.popleft() if self._waiting else None

    def _is_outdated(self, transfer: Transfer) -> bool:
        with self._changed:
            marks = [later.outdated_by for later in self._waiting]
        return transfer.outdated_by is not None and transfer.outdated_by in marks

    def _repeat(self, transfer: Transfer) -> Exception | None:
        """Do a transfer until it succeeds; the error that ended it otherwise."""
        pause = _FIRST_PAUSE_SECONDS
        while True:
            try:
                transfer.work()
                self._away_since = None
                TRANSFERS.labels("done").inc()
                return None
            except LeaseLostError as error:
                self.lease_lost.set()
                return error
            except UnavailableError as error:
                if time.monotonic() + pause > self._deadline(transfer) or self._abandoned.wait(pause):
                    self._logger.error("%s: given up: %s", transfer.name, error.detail)
                    TRANSFERS.labels("failed").inc()
                    return error
                TRANSFERS.labels("repeated").inc()
                self._logger.warning("%s: will be repeated: %s", transfer.name, error.detail)
                pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
            except (CondenserError, OSError) as error:
                self._away_since = None  # no longer what is in the way, if it was
                self._logger.error("%s: failed: %s", transfer.name, error)
                TRANSFERS.labels("failed").inc()
                return error
            except Exception as error:
                # The thread must outlive it: the attempt waits for this transfer, and others come after it.
                self._away_since = None
                self._logger.exception("%s: failed", transfer.name)
                TRANSFERS.labels("failed").inc()
                return error

    def _deadline(self, transfer: Transfer) -> float:
        """Say until when a transfer that has just found a server away is repeated."""
        if self._away_since is None:
            self._away_since = time.monotonic()
        deadline = max(self._away_since, transfer.asked_at) + self._patience_seconds
        return deadline if self._hurry_until is None else min(deadline, self._hurry_until)
