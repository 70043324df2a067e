"""A polite stop: SIGTERM asks, the work goes on to its next safe point, and the process ends resumable."""

import signal
from types import FrameType


class Stopped(Exception):  # noqa: N818 - not an error: the stop that was asked for
    """The work stopped at a safe point because it was asked to."""


class StopRequest:
    """Whether a stop has been asked for."""

    def __init__(self) -> None:
        self.requested = False

    def listen(self) -> None:
        """Take SIGTERM as the request."""
        signal.signal(signal.SIGTERM, self._request)

    def check(self) -> None:
        """Stop here if a stop has been asked for.

        Raises
        ------
        Stopped
            If it has.
        """
        if self.requested:
            raise Stopped

    def _request(self, signum: int, frame: FrameType | None) -> None:
        self.requested = True
