"""Calls of a server that is slow wait for a thread, though not for ever."""

import asyncio
import threading

import pytest

from api import server_threads
from api.server_threads import ServerThreads
from store.errors import UnavailableError


def test_a_call_that_gets_no_thread_in_time_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_threads, "WAIT_SECONDS", 0.1)
    begun, go_on = threading.Event(), threading.Event()

    def hold() -> str:
        begun.set()
        go_on.wait(20)
        return "an answer"

    async def ask() -> None:
        threads = ServerThreads("The server", 1)
        held = asyncio.create_task(threads.run(hold))
        assert await asyncio.to_thread(begun.wait, 20)
        with pytest.raises(UnavailableError, match="The server is slow"):
            await threads.run(lambda: "another")
        go_on.set()
        assert await held == "an answer"
        assert await threads.run(lambda: "another") == "another"

    asyncio.run(ask())


def test_a_call_that_fails_gives_its_thread_back() -> None:
    async def ask() -> None:
        threads = ServerThreads("The server", 1)
        for _ in range(2):
            with pytest.raises(ZeroDivisionError):
                await threads.run(divmod, 1, 0)

    asyncio.run(ask())
