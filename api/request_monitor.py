"""Times every request, and logs it once it is over."""

import logging
import time
from typing import Literal

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.monitoring import ApiMetrics

LOGGER = logging.getLogger(__name__)

Kind = Literal["request", "poll", "stream"]

UNROUTED = "unrouted"
PROBED = frozenset({"/healthz", "/readyz", "/metrics"})
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class RequestMonitorMiddleware:
    """Time every request and log it when it is over.

    Parameters
    ----------
    app
        What answers.
    metrics
        Where times are kept.
    """

    def __init__(self, app: ASGIApp, metrics: ApiMetrics) -> None:
        self.app = app
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and keep its times."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began = time.perf_counter()
        kind = _kind(scope)
        status = 500  # what an error is answered with further out
        started: float | None = None

        async def timed_send(message: Message) -> None:
            nonlocal status, started
            if message["type"] == "http.response.start":
                status, started = message["status"], time.perf_counter() - began
            await send(message)

        open_requests = self.metrics.open_requests.labels(kind)
        open_requests.inc()
        try:
            await self.app(scope, receive, timed_send)
        finally:
            open_requests.dec()
            seconds = time.perf_counter() - began
            self._record(scope, kind, status, seconds if started is None else started, seconds)

    def _record(self, scope: Scope, kind: Kind, status: int, to_answer: float, to_end: float) -> None:
        route = _route(scope)
        method = scope["method"] if scope["method"] in METHODS else "other"
        self.metrics.request_seconds.labels(method, route, str(status), kind).observe(to_answer)
        LOGGER.log(
            logging.DEBUG if route in PROBED else logging.INFO,
            "%s %s: %d",
            method,
            route,
            status,
            extra={"path": scope["path"], "seconds": round(to_end, 4), "answer_seconds": round(to_answer, 4)},
        )


def _kind(scope: Scope) -> Kind:
    if b"wait=" in scope["query_string"]:
        return "poll"
    is_stream = "text/event-stream" in Headers(scope=scope).get("accept", "")
    return "stream" if is_stream else "request"


def _route(scope: Scope) -> str:
    """Template of the route that was found; never the path, of which there are endlessly many."""
    route = scope.get("route")
    return getattr(route, "path", UNROUTED)
