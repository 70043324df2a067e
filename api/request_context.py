"""The outermost layer: a request id, safe response headers, and the answer to an unforeseen error.

The request id goes into the scope, the response header, every problem document and the log. Nothing of an
unforeseen error but that id reaches the client.
"""

import logging
import re
import uuid

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.contextvars import bound_contextvars

from api.problems import REQUEST_ID_HEADER, internal_error
from api.security_headers import add_security_headers
from store.key_format import masked

LOGGER = logging.getLogger(__name__)

_ACCEPTABLE_REQUEST_ID = re.compile(r"[A-Za-z0-9_-]{8,64}")


class RequestContextMiddleware:
    """Give every request an id, and answer what no other layer answered."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on under its id."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        offered = Headers(scope=scope).get(REQUEST_ID_HEADER, "")
        request_id = offered if _ACCEPTABLE_REQUEST_ID.fullmatch(offered) else uuid.uuid4().hex
        scope["request_id"] = request_id
        with bound_contextvars(request_id=request_id):
            await self._answer(scope, receive, send, request_id)

    async def _answer(self, scope: Scope, receive: Receive, send: Send, request_id: str) -> None:
        started = False

        async def send_with_headers(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(scope=message)
                headers[REQUEST_ID_HEADER] = request_id
                add_security_headers(headers)
                headers.setdefault("Cache-Control", "no-store")
                headers.update(scope.get("answer_headers", {}))
            await send(message)

        try:
            await self.app(scope, receive, send_with_headers)
        # The one place where every error is caught: a client must get a problem document and never a
        # traceback, whatever went wrong, and the cause must reach the log together with the request id.
        except Exception:
            LOGGER.exception("request %s failed: %s %r", request_id, scope["method"], masked(scope["path"]))
            if started:
                raise
            await internal_error(Request(scope))(scope, receive, send_with_headers)
