"""Lets streams and long polls end as soon as the process is told to stop.

The server runs the application's own shutdown only after every open response has ended, so an endless stream
would hold it up. This module hears the signal first, then hands it on to the server's handler.
"""

import asyncio
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


@contextmanager
def closing_on_signal() -> Iterator[asyncio.Event]:
    """Give an event that is set when the process is told to stop, and at the latest on leaving.

    Signal handlers exist in the main thread only; in any other thread the caller sets the event.
    """
    closing = asyncio.Event()
    loop = asyncio.get_running_loop()
    if threading.current_thread() is not threading.main_thread():
        yield closing
        closing.set()
        return
    previous = {number: signal.getsignal(number) for number in _SIGNALS}

    def announce(number: int, frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(closing.set)
        handler = previous[signal.Signals(number)]
        if callable(handler):
            handler(number, frame)

    for number in _SIGNALS:
        signal.signal(number, announce)
    try:
        yield closing
    finally:
        closing.set()
        for number, handler in previous.items():
            signal.signal(number, handler)
