"""Holds the lease of one generation in a thread, while another one fetches and draws."""

import logging
import threading
from types import TracebackType
from typing import Self

from store.database import Clock, Engine, transaction
from store.errors import LeaseLostError, UnavailableError
from store.generations import GenerationClaim, extend_lease

logger = logging.getLogger(__name__)


class GenerationLease:
    """Extends a lease again and again until the block ends.

    Parameters
    ----------
    engine, clock
        The database, and the time in it.
    claim
        Whose lease.
    lease_seconds
        By how much it is extended.
    beat_seconds
        Pause between two beats, and so the longest that a cancel stays unheard.

    Attributes
    ----------
    lost
        Set when the generation is to be given up.
    """

    def __init__(
        self,
        engine: Engine,
        clock: Clock,
        claim: GenerationClaim,
        *,
        lease_seconds: float,
        beat_seconds: float,
    ) -> None:
        self.lost = threading.Event()
        self._engine = engine
        self._clock = clock
        self._claim = claim
        self._lease_seconds = lease_seconds
        self._beat_seconds = beat_seconds
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="generation-lease")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._over.set()
        self._thread.join()

    def check(self) -> None:
        """Raise `LeaseLostError` if the generation is to be given up."""
        if self.lost.is_set():
            raise LeaseLostError("The generation is no longer this worker's.")

    def _run(self) -> None:
        while not self._over.wait(self._beat_seconds) and not self.lost.is_set():
            try:
                with transaction(self._engine) as session:
                    extend_lease(
                        session,
                        generation_id=self._claim.generation_id,
                        lease_token=self._claim.lease_token,
                        now=self._clock(session),
                        lease_seconds=self._lease_seconds,
                    )
            except LeaseLostError:
                self.lost.set()
            except UnavailableError as error:  # the lease may outlast it; if not, the last write is refused
                logger.warning("the lease is not extended: %s", error.detail)
            except Exception:
                # The drawing goes on and needs the next beat, whatever ended this one.
                logger.exception("the lease is not extended")
