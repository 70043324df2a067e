"""The two ways to wait for the network, the clock and the disk: as a thread, or as a coroutine.

Nothing else differs between the client that blocks and the one that does not; see `client.blocking`.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Protocol, TypeVar
from urllib.parse import urlsplit

import httpx

from client.blocking import iterate

LOOPBACK_HOSTS = {"localhost", "127.0.0.1", "::1"}

T = TypeVar("T")


def goes_direct(url: str) -> bool:
    """Tell whether requests to a URL must not go through a proxy that the environment names."""
    return urlsplit(url).hostname in LOOPBACK_HOSTS


class Connection(Protocol):
    """Connections to one server, and the other things that take time."""

    def __init__(self, base_url: str, headers: Mapping[str, str]) -> None: ...

    def build(
        self, method: str, path: str, *, content: AsyncIterator[bytes] | None = None, **options: Any
    ) -> httpx.Request:
        """Build a request as httpx does, whose body may come block by block."""

    async def send(self, request: httpx.Request) -> httpx.Response:
        """Send a request, and read its answer whole."""

    def stream(self, request: httpx.Request) -> AbstractAsyncContextManager[httpx.Response]:
        """Send a request whose answer is read as it comes; one that refuses is read whole."""

    def blocks(self, response: httpx.Response, size: int | None = None) -> AsyncIterator[bytes]:
        """Read the body of a streamed answer, as it comes or in blocks of a size."""

    async def pause(self, seconds: float) -> None:
        """Let time pass."""

    async def offload(self, work: Callable[[], T]) -> T:
        """Do what keeps the disk or the processor busy."""

    async def close(self) -> None:
        """Close the connections."""


class BlockingConnection:
    """The thread waits, and no coroutine ever does."""

    def __init__(self, base_url: str, headers: Mapping[str, str]) -> None:
        self._http = httpx.Client(base_url=base_url, headers=headers, trust_env=not goes_direct(base_url))

    def build(
        self, method: str, path: str, *, content: AsyncIterator[bytes] | None = None, **options: Any
    ) -> httpx.Request:
        """See `Connection`."""
        body = None if content is None else iterate(content)
        return self._http.build_request(method, path, content=body, **options)

    async def send(self, request: httpx.Request) -> httpx.Response:
        """See `Connection`."""
        return self._http.send(request)

    @asynccontextmanager
    async def stream(self, request: httpx.Request) -> AsyncIterator[httpx.Response]:
        """See `Connection`."""
        response = self._http.send(request, stream=True)
        try:
            if response.is_error:
                response.read()
            yield response
        finally:
            response.close()

    async def blocks(self, response: httpx.Response, size: int | None = None) -> AsyncIterator[bytes]:
        """See `Connection`."""
        for block in response.iter_bytes(size):
            yield block

    async def pause(self, seconds: float) -> None:
        """See `Connection`."""
        time.sleep(seconds)

    async def offload(self, work: Callable[[], T]) -> T:
        """See `Connection`."""
        return work()

    async def close(self) -> None:
        """See `Connection`."""
        self._http.close()


class AsyncConnection:
    """The coroutine waits; others of the event loop go on."""

    def __init__(self, base_url: str, headers: Mapping[str, str]) -> None:
        self._http = httpx.AsyncClient(
            base_url=base_url, headers=headers, trust_env=not goes_direct(base_url)
        )

    def build(
        self, method: str, path: str, *, content: AsyncIterator[bytes] | None = None, **options: Any
    ) -> httpx.Request:
        """See `Connection`."""
        return self._http.build_request(method, path, content=content, **options)

    async def send(self, request: httpx.Request) -> httpx.Response:
        """See `Connection`."""
        return await self._http.send(request)

    @asynccontextmanager
    async def stream(self, request: httpx.Request) -> AsyncIterator[httpx.Response]:
        """See `Connection`."""
        response = await self._http.send(request, stream=True)
        try:
            if response.is_error:
                await response.aread()
            yield response
        finally:
            await response.aclose()

    def blocks(self, response: httpx.Response, size: int | None = None) -> AsyncIterator[bytes]:
        """See `Connection`."""
        return response.aiter_bytes(size)

    async def pause(self, seconds: float) -> None:
        """See `Connection`."""
        await asyncio.sleep(seconds)

    async def offload(self, work: Callable[[], T]) -> T:
        """See `Connection`."""
        return await asyncio.to_thread(work)

    async def close(self) -> None:
        """See `Connection`."""
        await self._http.aclose()
