"""Work that is done again and again in a thread of its own, as long as the process lives."""

import logging
import threading
from collections.abc import Callable

from store.errors import UnavailableError

logger = logging.getLogger(__name__)


def make_passes(work: Callable[[], None], stop: threading.Event, *, name: str, pause_seconds: float) -> None:
    """Do some work, whatever becomes of it, until ``stop`` is set; the body of a thread.

    Parameters
    ----------
    work
        One pass. Where it fails the next one starts afresh.
    stop
        Ends the passes.
    name
        What the lines of the log begin with.
    pause_seconds
        Between the end of a pass and the next one.
    """
    while not stop.is_set():
        try_to(work, name=name)
        stop.wait(pause_seconds)


def try_to(work: Callable[[], object], *, name: str) -> None:
    """Do some work, and log an error that it raises instead of passing it on."""
    try:
        work()
    except UnavailableError as error:
        logger.warning("%s: %s", name, error.detail)
    except Exception:
        # An error that we did not foresee must not end the thread: nobody else in this process does its work.
        logger.exception("%s: failed", name)
