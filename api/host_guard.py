"""Refuses what a foreign web page can make a browser send to a service on loopback.

Routes want an API key, which no foreign page has; but a page must not get so far as to try one, nor to read
what the routes without a key say. It can reach loopback by DNS rebinding (its own name resolves to 127.0.0.1:
the Host header gives it away) and by cross-site requests (the Origin header gives them away). Programs send
neither a foreign Host nor an Origin.
"""

from collections.abc import Collection
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from api.problems import ProblemResponse

LOOPBACK_HOSTS = frozenset({"localhost", "127.0.0.1", "::1"})
ANY_HOST = "*"


class HostGuardMiddleware:
    """Answer only requests for our own host names, and of browsers only those that our own pages sent.

    Parameters
    ----------
    app
        What to guard.
    public_hosts
        Names that are ours beside those of loopback; ``*`` for any.
    allowed_origins
        Foreign pages that may send requests all the same.
    """

    def __init__(
        self, app: ASGIApp, public_hosts: Collection[str], allowed_origins: Collection[str] = ()
    ) -> None:
        self.app = app
        self.public_hosts = frozenset(public_hosts)
        self.allowed_origins = frozenset(allowed_origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on or refuse it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if not self._is_ours(host):
            refusal = ProblemResponse(
                Request(scope),
                status=421,
                code="unknown_host",
                title="This service does not go by that name",
                detail="The Host header names none of the names that this service answers to. "
                "An operator adds names by the setting PUBLIC_HOSTS.",
            )
            await refusal(scope, receive, send)
        elif self._is_foreign(headers, host):
            refusal = ProblemResponse(
                Request(scope),
                status=403,
                code="cross_site_request",
                title="Cross-site requests are refused",
                detail="A web page of another origin sent this request.",
            )
            await refusal(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    def _is_ours(self, host: str) -> bool:
        return ANY_HOST in self.public_hosts or host_name(host) in LOOPBACK_HOSTS | self.public_hosts

    def _is_foreign(self, headers: Headers, host: str) -> bool:
        """Tell whether a foreign page sent the request; a proxy may have put in a Host of its own."""
        origin = headers.get("origin")
        if origin is None or origin in self.allowed_origins:
            return False
        authority = origin.partition("://")[2].lower()
        return authority != host.lower() and host_name(authority) not in self.public_hosts


def host_name(authority: str) -> str | None:
    """Name or address of a Host header, without port and brackets; None when it is malformed."""
    try:
        return urlsplit(f"//{authority}").hostname
    except ValueError:
        return None
