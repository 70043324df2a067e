"""How long, and how often, the client tries again while something is away."""

import logging
from collections.abc import Iterator
from itertools import chain, repeat

from client.connections import Connection
from client.quantities import duration

LOGGER = logging.getLogger(__name__)

PAUSES_SECONDS = (0.2, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0)
LONGEST_PAUSE_SECONDS = 30.0
# Of whoever waits for an answer now.
PATIENCE_SECONDS = 8.0
# Of whoever waits for what takes hours or days: a service can be moved or restarted meanwhile.
LONG_PATIENCE_SECONDS = 600.0


def patience_within(seconds: float | None) -> float:
    """Return the patience, in seconds, of whoever waits for so long, or for ever."""
    return (
        LONG_PATIENCE_SECONDS
        if seconds is None
        else min(max(seconds, PATIENCE_SECONDS), LONG_PATIENCE_SECONDS)
    )


class Patience:
    """Pauses between tries, ever longer, until it is at its end.

    Parameters
    ----------
    connection
        How to pause.
    seconds
        How long all pauses may last together; 0 for a single try.
    """

    def __init__(self, connection: Connection, seconds: float = PATIENCE_SECONDS) -> None:
        self._connection = connection
        self._seconds = seconds
        self.renew()

    def renew(self) -> None:
        """Begin anew, after something has come through."""
        self._left = self._seconds
        self._pauses: Iterator[float] = chain(PAUSES_SECONDS, repeat(LONGEST_PAUSE_SECONDS))
        self._has_told = False

    async def pause(self, failure: str, at_least: float = 0.0) -> bool:
        """Pause before the next try, and return True; or False, at once, if there should be none.

        Parameters
        ----------
        failure
            What went wrong, in words; logged when it goes on for longer than most waits.
        at_least
            Seconds that the other side asked for.
        """
        pause = next(self._pauses)
        if pause > self._left:
            return False
        if self._seconds - self._left + pause > PATIENCE_SECONDS and not self._has_told:
            self._has_told = True
            LOGGER.warning("%s; trying again for %s", failure, duration(self._left))
        self._left -= pause
        await self._connection.pause(max(pause, at_least))
        return True
