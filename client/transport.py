"""Requests to the service: repeated while it is away, refused with typed errors.

Only requests that may safely be sent twice are repeated: reads, creations that carry an idempotency key,
uploads, which make the same content one file, and moves of a job, which do nothing or are refused the second
time.
"""

import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx
from pydantic import BaseModel, ValidationError

from client.errors import ApiUnreachableError, MalformedKeyError, error_of
from client.models import Problem

LOOPBACK_HOSTS = {"localhost", "127.0.0.1", "::1"}
CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 30.0
STORE_SECONDS = 300.0  # after the last byte of an upload the service may still be passing it on
PAUSES_SECONDS = (0.2, 0.5, 1.0, 2.0, 4.0)
LONGEST_PAUSE_SECONDS = 30.0
# Our own first try, given up as lost, may still be at work on the other side.
FIRST_REQUEST_IN_PROGRESS = "urn:condenser:problem:request_in_progress"

_VISIBLE = re.compile(r"[\x21-\x7e]*")

Model = TypeVar("Model", bound=BaseModel)


def goes_direct(url: str) -> bool:
    """Tell whether requests to a URL must not go through a proxy that the environment names."""
    return urlsplit(url).hostname in LOOPBACK_HOSTS


class Transport:
    """Sends requests to one service.

    Parameters
    ----------
    base_url
        Where the service is.
    api_key
        Sent with every request to the service, and to nobody else.
    pause
        Waits for a number of seconds between two tries.
    """

    def __init__(
        self, base_url: str, api_key: str | None = None, pause: Callable[[float], None] = time.sleep
    ) -> None:
        api_key = (api_key or "").strip()
        if not _VISIBLE.fullmatch(api_key):
            # Sent all the same it would be refused in words that repeat it.
            raise MalformedKeyError("the API key has characters that no API key has: copy it once more")
        self.base_url = base_url.rstrip("/")
        self.pause = pause
        self._http = httpx.Client(
            base_url=self.base_url,
            timeout=httpx.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS),
            trust_env=not goes_direct(base_url),
            headers={"User-Agent": "condenser-client"}
            | ({"Authorization": f"Bearer {api_key}"} if api_key else {}),
        )

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def read(self, model: type[Model], path: str, **options: Any) -> Model:
        """Read a resource."""
        return model.model_validate(self.request("GET", path, **options).json())

    def request(
        self,
        method: str,
        path: str,
        *,
        parameters: Mapping[str, Any] | None = None,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        answer_seconds: float = ANSWER_SECONDS,
        once: bool = False,
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
        once
            Never send it a second time.

        Raises
        ------
        ApiError
            If the service refuses the request.
        ApiUnreachableError
            If it cannot be reached.
        """
        request = self._http.build_request(
            method,
            path,
            params={name: value for name, value in (parameters or {}).items() if value is not None},
            json=body,
            headers=dict(headers or {}),
            timeout=httpx.Timeout(answer_seconds, connect=CONNECT_SECONDS),
        )
        return self._answer(lambda: self._http.send(request), once=once)

    def upload(
        self, path: str, *, parameters: Mapping[str, str], size: int, content: Callable[[], Iterable[bytes]]
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

        def send() -> httpx.Response:
            return self._http.post(
                path,
                params=dict(parameters),
                content=content(),
                headers={"Content-Length": str(size), "Content-Type": "application/octet-stream"},
                timeout=httpx.Timeout(STORE_SECONDS, connect=CONNECT_SECONDS),
            )

        return self._answer(send)

    def _answer(self, send: Callable[[], httpx.Response], *, once: bool = False) -> httpx.Response:
        """Send until there is an answer that will stay the same."""
        for pause in (None,) if once else (*PAUSES_SECONDS, None):
            try:
                response = send()
            except httpx.TransportError as error:
                if pause is None:
                    raise ApiUnreachableError(f"{self.base_url} does not answer: {error}") from error
                self.pause(pause)
                continue
            if pause is None or not _may_change(response):
                break
            self.pause(max(pause, _retry_after(response)))
        raise_for_problem(response)
        return response

    @contextmanager
    def stream(
        self, path: str, *, headers: Mapping[str, str], silence_seconds: float
    ) -> Iterator[httpx.Response]:
        """Open a stream, once; whoever reads it reopens it."""
        timeout = httpx.Timeout(silence_seconds, connect=CONNECT_SECONDS)
        with self._http.stream("GET", path, headers=dict(headers), timeout=timeout) as response:
            if response.is_error:
                response.read()
            raise_for_problem(response)
            yield response


def raise_for_problem(response: httpx.Response) -> None:
    """Raise the typed error of an answer that refuses the request."""
    if response.is_error:
        raise error_of(_problem_of(response))


def _problem_of(response: httpx.Response) -> Problem:
    try:
        return Problem.model_validate_json(response.content)
    except ValidationError:
        # Something between us and the service answered in its own words.
        return Problem(status=response.status_code, title=response.reason_phrase or "The request failed")


def _may_change(response: httpx.Response) -> bool:
    """Tell whether the same request may be answered otherwise a little later."""
    if response.status_code == httpx.codes.CONFLICT:
        return _problem_of(response).type == FIRST_REQUEST_IN_PROGRESS
    return response.status_code in {httpx.codes.SERVICE_UNAVAILABLE, httpx.codes.TOO_MANY_REQUESTS}


def _retry_after(response: httpx.Response) -> float:
    seconds = response.headers.get("Retry-After", "")
    return min(float(seconds), LONGEST_PAUSE_SECONDS) if seconds.isdigit() else 0.0
