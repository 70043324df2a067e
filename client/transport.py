"""Requests to the service: repeated while it is away, refused with typed errors.

Only requests that may safely be sent twice are repeated: reads, creations that carry an idempotency key,
uploads, which make the same content one file, and moves of a job, which do nothing or are refused the second
time.
"""

import inspect
import re
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from client.connections import AsyncConnection, Connection, goes_direct
from client.errors import (
    ApiUnreachableError,
    MalformedAddressError,
    MalformedKeyError,
    MalformedValueError,
    UnexpectedAnswerError,
    error_of,
)
from client.models import Page, Problem
from client.patience import LONGEST_PAUSE_SECONDS, PATIENCE_SECONDS, Patience

CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 30.0
STORE_SECONDS = 300.0  # after the last byte of an upload the service may still be passing it on
PAGE = 200
# Our own first try, given up as lost, may still be at work on the other side.
FIRST_REQUEST_IN_PROGRESS = "urn:condenser:problem:request_in_progress"
# The service itself, or what stands before it while it is restarted.
AWAY = {
    httpx.codes.BAD_GATEWAY,
    httpx.codes.SERVICE_UNAVAILABLE,
    httpx.codes.GATEWAY_TIMEOUT,
    httpx.codes.TOO_MANY_REQUESTS,
}

HIGHEST_PORT = 65_535
JSON = "application/json"

_VISIBLE = re.compile(r"[\x21-\x7e]*")

Model = TypeVar("Model", bound=BaseModel)
Item = TypeVar("Item")


class Transport:
    """Sends requests to one service.

    Parameters
    ----------
    base_url
        Where the service is.
    api_key
        Sent with every request to the service, and to nobody else.
    connect
        Which way to wait.
    """

    def __init__(
        self, base_url: str, api_key: str | None = None, connect: type[Connection] = AsyncConnection
    ) -> None:
        _check_address(base_url)
        api_key = (api_key or "").strip()
        if not _VISIBLE.fullmatch(api_key):
            # Sent all the same it would be refused in words that repeat it.
            raise MalformedKeyError("the API key has characters that no API key has: copy it once more")
        self.base_url = base_url.rstrip("/")
        self._connect = connect
        self.connection = connect(
            self.base_url,
            {"User-Agent": "condenser-client"} | ({"Authorization": f"Bearer {api_key}"} if api_key else {}),
        )

    async def close(self) -> None:
        """Close the connections."""
        await self.connection.close()

    @asynccontextmanager
    async def elsewhere(self, url: str) -> AsyncIterator[Connection]:
        """Connect to another server, which is not told the key."""
        connection = self._connect(url, {})
        try:
            yield connection
        finally:
            await connection.close()

    async def read(self, model: type[Model], path: str, **options: Any) -> Model:
        """Read a resource."""
        return model_of(model, await self.request("GET", path, **options))

    async def items(
        self,
        page: type[Page[Item]],
        path: str,
        *,
        parameters: Mapping[str, Any] | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[Item]:
        """Yield the items of a list, at most ``limit`` of them, page after page as they are asked for."""
        left, cursor, has_more = limit, None, limit is None or limit > 0
        while has_more:
            size = PAGE if left is None else min(left, PAGE)
            asked = {**(parameters or {}), "limit": size, "after": cursor}
            answer = await self.read(page, path, parameters=asked)
            for item in answer.items:
                yield item
            left = None if left is None else left - len(answer.items)
            cursor, has_more = answer.next, answer.has_more and left != 0

    async def create(
        self, model: type[Model], path: str, body: Mapping[str, Any], idempotency_key: str | None
    ) -> Model:
        """Make something; a request that gets lost is sent again and still makes it only once."""
        headers = {"Idempotency-Key": f'"{idempotency_key or uuid.uuid4()}"'}
        answer = await self.request("POST", path, body=dict(body), headers=headers)
        return model_of(model, answer)

    async def request(
        self,
        method: str,
        path: str,
        *,
        parameters: Mapping[str, Any] | None = None,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        answer_seconds: float = ANSWER_SECONDS,
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> httpx.Response:
        """Send a request until it is answered.

        Parameters
        ----------
        method, path
            What to ask for.
        parameters
            Of the query; those that are None are left out.
        body
            Sent as JSON.
        headers
            Beside the usual ones.
        answer_seconds
            Longest time until an answer.
        patience_seconds
            How long to pause between tries, all in all; with 0 it is never sent a second time.

        Raises
        ------
        ApiError
            If the service refuses the request.
        ApiUnreachableError
            If it cannot be reached.
        MalformedValueError
            If a value cannot be sent: a number that is not finite, or a text that is not Unicode.
        UnexpectedAnswerError
            If something else answers in its place.
        """
        try:
            request = self.connection.build(
                method,
                path,
                params={name: value for name, value in (parameters or {}).items() if value is not None},
                json=body,
                headers=dict(headers or {}),
                timeout=httpx.Timeout(answer_seconds, connect=min(answer_seconds, CONNECT_SECONDS)),
            )
        except ValueError as error:
            raise MalformedValueError(
                f"what was given cannot be sent: {error}; numbers have to be finite, and texts Unicode"
            ) from error
        return await self._answer(lambda: self.connection.send(request), patience_seconds)

    async def upload(
        self,
        path: str,
        *,
        parameters: Mapping[str, str],
        size: int,
        content: Callable[[], AsyncIterator[bytes]],
    ) -> httpx.Response:
        """Send a body as it is, block by block, until it is answered.

        Parameters
        ----------
        path, parameters
            Where to.
        size
            Bytes of the body.
        content
            Makes its blocks; called again when the body has to be sent anew.
        """

        async def send() -> httpx.Response:
            request = self.connection.build(
                "POST",
                path,
                params=dict(parameters),
                content=content(),
                headers={"Content-Length": str(size), "Content-Type": "application/octet-stream"},
                timeout=httpx.Timeout(STORE_SECONDS, connect=CONNECT_SECONDS),
            )
            return await self.connection.send(request)

        return await self._answer(send)

    async def _answer(
        self, send: Callable[[], Awaitable[httpx.Response]], patience_seconds: float = PATIENCE_SECONDS
    ) -> httpx.Response:
        """Send until there is an answer that will stay the same."""
        patience = Patience(self.connection, patience_seconds)
        while True:
            try:
                response = await send()
            except httpx.TransportError as error:
                failure = self.absence(error)
                if not await patience.pause(failure):
                    raise ApiUnreachableError(failure) from error
                continue
            if not _may_change(response):
                break
            reason = f"{response.status_code} {response.reason_phrase}"
            if not await patience.pause(self.absence(reason), _retry_after(response)):
                break
        raise_for_problem(response)
        _raise_for_stranger(response)
        return response

    def absence(self, reason: object) -> str:
        """Say in one line that the service is away."""
        return f"{self.base_url} does not answer: {reason}".replace("\n", ": ")

    @asynccontextmanager
    async def stream(
        self, path: str, *, headers: Mapping[str, str], silence_seconds: float
    ) -> AsyncIterator[httpx.Response]:
        """Open a stream, once; whoever reads it reopens it."""
        timeout = httpx.Timeout(silence_seconds, connect=CONNECT_SECONDS)
        request = self.connection.build("GET", path, headers=dict(headers), timeout=timeout)
        async with self.connection.stream(request) as response:
            raise_for_problem(response)
            yield response


async def tell(listener: Callable[..., object] | None, *news: Any) -> None:
    """Call whoever wants to know of progress, a function or a coroutine function."""
    if listener is not None:
        told = listener(*news)
        if inspect.isawaitable(told):
            await told


def _check_address(url: str) -> None:
    """Raise if a URL cannot be the service's address."""
    try:
        parts = httpx.URL(url)
        goes_direct(url)
        is_sound = parts.scheme in {"http", "https"} and parts.host and (parts.port or 0) <= HIGHEST_PORT
        why = "" if is_sound else ": it wants http:// or https://, a host, and a port up to 65535 if any"
    except (httpx.InvalidURL, ValueError) as error:
        why = f": {error}"
    if why:
        raise MalformedAddressError(
            f"{url!r} is not the address of a service{why}. "
            "Write it as http://127.0.0.1:8000 (--url, CONDENSER_URL)"
        )


def model_of(model: type[Model], response: httpx.Response) -> Model:
    """Read what the service answered.

    Raises
    ------
    UnexpectedAnswerError
        If it is something else.
    """
    try:
        return model.model_validate_json(response.content)
    except ValidationError as error:
        raise unexpected(response) from error


def media_type_of(response: httpx.Response) -> str:
    """Return what an answer says that it is."""
    return str(response.headers.get("Content-Type", "")).partition(";")[0].strip().lower()


def unexpected(response: httpx.Response) -> UnexpectedAnswerError:
    """Make the error of an answer that is not the service's."""
    leads = f", which leads to {response.headers['Location']}" if response.has_redirect_location else ""
    return UnexpectedAnswerError(
        f"{_address_of(response)} does not answer as the service does: {response.status_code} "
        f"{response.reason_phrase}, {media_type_of(response) or 'of no type'}{leads}. Another server may "
        "listen there, or a page to sign in stand before it: open it in a browser, and see whether the "
        "address (--url, CONDENSER_URL) is right"
    )


def _address_of(response: httpx.Response) -> httpx.URL:
    return response.url.copy_with(query=None)


def _raise_for_stranger(response: httpx.Response) -> None:
    """Raise if a success is not the service's: it answers JSON or nothing, and redirects to weights alone."""
    if response.has_redirect_location:
        is_ours = "X-Content-Sha256" in response.headers
    else:
        is_ours = not response.content or media_type_of(response) in {JSON, ""}
    if not is_ours:
        raise unexpected(response)


def raise_for_problem(response: httpx.Response) -> None:
    """Raise the typed error of an answer that refuses the request."""
    if response.is_error:
        raise error_of(_problem_of(response))


def _problem_of(response: httpx.Response) -> Problem:
    try:
        return Problem.model_validate_json(response.content)
    except ValidationError:
        # Something between us and the service answered in its own words.
        title = f"{response.status_code} {response.reason_phrase}".strip()
        detail = (
            f"{_address_of(response)} answered so, and not in the service's words: see whether it runs there"
        )
        return Problem(status=response.status_code, title=title, detail=detail)


def _may_change(response: httpx.Response) -> bool:
    """Tell whether the same request may be answered otherwise a little later."""
    if response.status_code == httpx.codes.CONFLICT:
        return _problem_of(response).type == FIRST_REQUEST_IN_PROGRESS
    return response.status_code in AWAY


def _retry_after(response: httpx.Response) -> float:
    seconds = response.headers.get("Retry-After", "")
    return min(float(seconds), LONGEST_PAUSE_SECONDS) if seconds.isdigit() else 0.0
