"""One HTTP/1.1 connection to a server that we know, with next to no work for a request.

The clients share the machine with the service that they measure: a general library took more of the processor
than the API itself. References: RFC 9112, sections 6 and 7.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit


class ConnectionLostError(Exception):
    """The server closed the connection in the middle of an answer, or did not accept it."""


@dataclass(frozen=True)
class Answer:
    """An answer without its body."""

    status: int
    headers: Mapping[str, str]


class Connection:
    """A client that sends one request at a time.

    Parameters
    ----------
    url
        The server.
    headers
        Sent with every request.
    """

    def __init__(self, url: str, headers: Mapping[str, str]) -> None:
        address = urlsplit(url)
        self._host, self._port = address.hostname, address.port
        self._headers = {"Host": address.netloc, **headers}
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def request(
        self, method: str, path: str, *, headers: Mapping[str, str] | None = None, body: Any = None
    ) -> tuple[Answer, bytes]:
        """Send a request and read its answer whole."""
        answer = await self.open(method, path, headers=headers, body=body)
        parts = [part async for part in self.parts(answer)]
        return answer, b"".join(parts)

    async def open(
        self, method: str, path: str, *, headers: Mapping[str, str] | None = None, body: Any = None
    ) -> Answer:
        """Send a request and read the head of its answer; the body is to be read before the next one."""
        if self._writer is None:
            self._reader, self._writer = await asyncio.open_connection(self._host, self._port)
        content = b"" if body is None else json.dumps(body).encode()
        sent = {**self._headers, **(headers or {})}
        if content:
            sent |= {"Content-Type": "application/json", "Content-Length": str(len(content))}
        lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in sent.items()), "", ""]
        self._writer.write("\r\n".join(lines).encode() + content)
        status_line, *header_lines = (await self._until(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        pairs = (line.partition(":") for line in header_lines if line)
        return Answer(int(status_line.split()[1]), {name.lower(): value.strip() for name, _, value in pairs})

    async def parts(self, answer: Answer) -> AsyncIterator[bytes]:
        """Yield the body of an answer as it comes."""
        assert self._reader is not None
        if answer.headers.get("transfer-encoding") == "chunked":
            while size := int(await self._until(b"\r\n"), 16):
                yield (await self._exactly(size + 2))[:-2]
            await self._until(b"\r\n")
        elif length := int(answer.headers.get("content-length", "0")):
            yield await self._exactly(length)

    def close(self) -> None:
        """Close the connection; the next request opens another."""
        if self._writer is not None:
            self._writer.close()
        self._reader = self._writer = None

    async def _until(self, mark: bytes) -> bytes:
        assert self._reader is not None
        try:
            return await self._reader.readuntil(mark)
        except (asyncio.IncompleteReadError, OSError) as error:
            self.close()
            raise ConnectionLostError(repr(error)) from error

    async def _exactly(self, size: int) -> bytes:
        assert self._reader is not None
        try:
            return await self._reader.readexactly(size)
        except (asyncio.IncompleteReadError, OSError) as error:
            self.close()
            raise ConnectionLostError(repr(error)) from error
