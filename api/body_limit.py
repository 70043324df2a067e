"""Refuses request bodies over a limit while they arrive, so that none over it is ever held in memory.

The framework has such a limit too, but answers in plain text when the length was announced; ours is a problem
document either way.
"""

from collections.abc import Mapping

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.problems import ProblemResponse

# A client reads an answer only once it has sent its body, so a body somewhat too large is read and dropped.
DISCARDED_LIMITS = 4


class BodyLimitMiddleware:
    """Count the bytes of a body as they arrive and answer 413 past the limit.

    Parameters
    ----------
    app
        What to guard.
    max_body_bytes
        Limit of every route without one of its own.
    own_limits
        Limits of routes that pass their body on instead of holding it, by method and path.
    """

    def __init__(self, app: ASGIApp, max_body_bytes: int, own_limits: Mapping[tuple[str, str], int]) -> None:
        self.app = app
        self.max_body_bytes = max_body_bytes
        self.own_limits = own_limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, counting its body."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        limit = self.own_limits.get((scope["method"], scope["path"]), self.max_body_bytes)
        detail = f"A request body may have at most {limit} bytes."
        headers = Headers(scope=scope)
        announced = headers.get("content-length", "0")
        if announced.isdecimal() and int(announced) > limit:
            if "expect" not in headers:  # a client that asks before it sends has its answer at once
                await self._discard(receive)
            refusal = ProblemResponse(
                Request(scope),
                status=413,
                code="content_too_large",
                title="The body is too large",
                detail=detail,
                headers={"Connection": "close"},
            )
            await refusal(scope, receive, send)
            return
        received = 0

        async def counted_receive() -> Message:
            nonlocal received
            message = await receive()
            if message["type"] == "http.request":
                received += len(message.get("body", b""))
                if received > limit:
                    if message.get("more_body"):
                        await self._discard(receive)
                    raise HTTPException(413, detail, headers={"Connection": "close"})
            return message

        await self.app(scope, counted_receive, send)

    async def _discard(self, receive: Receive) -> None:
        discarded = 0
        while discarded <= DISCARDED_LIMITS * self.max_body_bytes:
            message = await receive()
            discarded += len(message.get("body", b""))
            if not message.get("more_body"):
                return
