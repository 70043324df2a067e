"""Requests to URLs that users choose: the one way by which the service calls out on their behalf.

The name is resolved once, every address that it resolves to is checked, and the connection is made to a
checked address: no second look at the name can lead elsewhere. TLS still checks the certificate against the
name. Redirects are not followed, proxies of the environment are not used, the answer is read up to a limit,
and all of it has one deadline.
"""

import socket
import ssl
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

import certifi
import httpcore
import httpx

from store.addresses import Network, literal_address, may_be_called
from store.errors import DestinationFailedError, DestinationRefusedError, InvalidInputError

LONGEST_URL = 2_000
HIGHEST_PORT = 65_535
_USER_AGENT = "condenser"


@dataclass(frozen=True)
class OutgoingAnswer:
    """What a destination answered.

    Attributes
    ----------
    status
        Status code; a redirect is an answer like any other.
    body
        The beginning of the body.
    """

    status: int
    body: bytes


def check_url(url: str, allowed_networks: Sequence[Network], *, field: str) -> str:
    """Check what can be known of a destination without asking the network.

    Parameters
    ----------
    url
        What the user gave.
    allowed_networks
        Networks that are allowed although they are not public. Where there are any, plain HTTP is accepted
        too: the sender lets it go nowhere else.
    field
        Name of the input field, for the error.

    Returns
    -------
    str
        The URL in its normal form. `InvalidInputError` where it is no destination.
    """
    schemes = ["https", "http"] if allowed_networks else ["https"]
    try:
        parsed = httpx.URL(url)
        port = parsed.port
    except (httpx.InvalidURL, ValueError, UnicodeError):
        raise InvalidInputError("This is not a URL.", field=field) from None
    if len(url) > LONGEST_URL:
        raise InvalidInputError(f"A URL may have at most {LONGEST_URL} characters.", field=field)
    if parsed.scheme not in schemes:
        raise InvalidInputError(
            "The URL has another scheme than those allowed.",
            field=field,
            allowed=[f"{scheme}://…" for scheme in schemes],
        )
    if not parsed.host or (port is not None and not 0 < port <= HIGHEST_PORT):
        raise InvalidInputError("The URL names no host and port that can be called.", field=field)
    if parsed.userinfo or parsed.fragment:
        raise InvalidInputError("The URL must have neither credentials nor a fragment.", field=field)
    address = literal_address(parsed.host)
    if address is not None and not may_be_called(address, allowed_networks):
        raise InvalidInputError(f"{parsed.host} is not an address of the public internet.", field=field)
    return str(parsed)


class OutgoingSender:
    """Sends requests to destinations that users chose; safe to use from many threads.

    Parameters
    ----------
    allowed_networks
        Networks that may be called although they are not public.
    ssl_context
        Which certificates are trusted; by default the system's and the common authorities.
    """

    def __init__(
        self, allowed_networks: Sequence[Network] = (), ssl_context: ssl.SSLContext | None = None
    ) -> None:
        self._allowed_networks = tuple(allowed_networks)
        self._ssl_context = ssl_context or _default_ssl_context()

    def post(
        self,
        url: str,
        *,
        content: bytes,
        headers: Mapping[str, str],
        timeout_seconds: float,
        max_answer_bytes: int,
    ) -> OutgoingAnswer:
        """Send one POST request.

        Parameters
        ----------
        url
            Where to.
        content, headers
            What to send.
        timeout_seconds
            Time for all of it: connection, request and answer. Only the resolver keeps its own time.
        max_answer_bytes
            How much of the answer's body is read; the rest is left unread.

        Raises
        ------
        DestinationRefusedError
            If the URL leads to an address that must not be called.
        DestinationFailedError
            If it does not answer in time, or not in HTTP.
        """
        try:
            target = httpx.URL(url)
        except (httpx.InvalidURL, ValueError, UnicodeError) as error:
            raise DestinationRefusedError("This is not a URL.") from error
        backend = _CheckedBackend(
            self._allowed_networks,
            only_allowed_networks=target.scheme != "https",
            deadline=time.monotonic() + timeout_seconds,
        )
        try:
            with (
                httpcore.ConnectionPool(self._ssl_context, network_backend=backend, retries=0) as pool,
                pool.stream(
                    "POST",
                    httpcore.URL(
                        scheme=target.raw_scheme,
                        host=target.raw_host,
                        port=target.port,
                        target=target.raw_path,
                    ),
                    headers=[("User-Agent", _USER_AGENT), ("Accept-Encoding", "identity"), *headers.items()],
                    content=content,
                ) as response,
            ):
                return OutgoingAnswer(response.status, _first_bytes(response.iter_stream(), max_answer_bytes))
        except httpcore.TimeoutException as error:
            raise DestinationFailedError(f"No answer within {timeout_seconds:g} s.") from error
        except (
            httpcore.NetworkError,
            httpcore.ProtocolError,
            httpcore.UnsupportedProtocol,
            OSError,
        ) as error:
            raise DestinationFailedError(f"The connection failed: {error or type(error).__name__}") from error


def _default_ssl_context() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.load_verify_locations(certifi.where())
    return context


def _first_bytes(blocks: Iterable[bytes], limit: int) -> bytes:
    body = b""
    for block in blocks:
        body += block
        if len(body) >= limit:
            break
    return body[:limit]


class _CheckedBackend(httpcore.SyncBackend):
    """Connects to checked addresses only, and to the very address that was checked."""

    def __init__(
        self, allowed_networks: Sequence[Network], *, only_allowed_networks: bool, deadline: float
    ) -> None:
        self._allowed_networks = allowed_networks
        self._only_allowed_networks = only_allowed_networks
        self._deadline = deadline

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        stream = super().connect_tcp(self._checked_address(host, port), port, _left(self._deadline))
        return _TimedStream(stream, self._deadline)

    def _checked_address(self, host: str, port: int) -> str:
        """Resolve a name; refuse it when any of its addresses must not be called."""
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise httpcore.ConnectError(f"{host} cannot be resolved") from error
        addresses = [str(entry[4][0]) for entry in found]
        for text in addresses:
            address = ip_address(text)
            if not may_be_called(address, self._allowed_networks):
                raise DestinationRefusedError(f"{host} is not an address of the public internet.")
            if self._only_allowed_networks and not _is_listed(text, self._allowed_networks):
                raise DestinationRefusedError(f"{host} may be called by HTTPS only.")
        return addresses[0]


def _is_listed(address: str, networks: Sequence[Network]) -> bool:
    return any(ip_address(address) in network for network in networks)


def _left(deadline: float) -> float:
    """Seconds until the deadline; a socket takes no zero for a time."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise httpcore.ReadTimeout("the time is over")
    return left


class _TimedStream(httpcore.NetworkStream):
    """A connection on which nothing outlives the deadline, however slowly the other side sends."""

    def __init__(self, stream: httpcore.NetworkStream, deadline: float) -> None:
        self._stream = stream
        self._deadline = deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, _left(self._deadline))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, _left(self._deadline))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        secured = self._stream.start_tls(ssl_context, server_hostname, _left(self._deadline))
        return _TimedStream(secured, self._deadline)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)
