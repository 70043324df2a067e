"""Threads of their own for what asks the object store or the broker.

Either may take a connection and then say nothing, and whoever has asked it holds a thread until the time is
over. Out of the threads that all requests share, enough of them would leave none for Postgres, and so for any
request at all. So every such call of a request goes through here. No transaction is open meanwhile, and no
thread of one kind waits for one of another.
"""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import ParamSpec, TypeVar

import anyio
import anyio.to_thread

from store.errors import UnavailableError

WAIT_SECONDS = 10.0
"""Behind a silent server calls would queue up without end."""

Arguments = ParamSpec("Arguments")
Answer = TypeVar("Answer")


class ServerThreads:
    """So many threads for calls of one server.

    Parameters
    ----------
    server
        Its name, for people.
    threads
        Calls at a time.
    """

    def __init__(self, server: str, threads: int) -> None:
        self._server = server
        self._free = asyncio.Semaphore(threads)

    async def run(
        self, call: Callable[Arguments, Answer], *args: Arguments.args, **kwargs: Arguments.kwargs
    ) -> Answer:
        """Make a blocking call in one of the threads; `UnavailableError` when none gets free in time."""
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                await self._free.acquire()
        except TimeoutError:
            raise UnavailableError(f"{self._server} is slow: all that may ask it wait for it.") from None
        try:
            # A limiter of this call's own: the semaphore is the limit.
            one = anyio.CapacityLimiter(1)
            return await anyio.to_thread.run_sync(partial(call, *args, **kwargs), limiter=one)
        finally:
            self._free.release()
