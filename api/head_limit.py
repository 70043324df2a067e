"""Refuses requests whose address or headers are larger than any that a client of ours sends."""

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from api.problems import ProblemResponse

MAX_ADDRESS_BYTES = 8 * 2**10
MAX_HEADER_BYTES = 32 * 2**10
MAX_HEADERS = 100


class HeadLimitMiddleware:
    """Answer 414 to long addresses and 431 to large headers."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on or refuse it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
        elif len(scope["raw_path"]) + len(scope["query_string"]) > MAX_ADDRESS_BYTES:
            refusal = ProblemResponse(
                Request({**scope, "path": scope["path"][:MAX_ADDRESS_BYTES]}),
                status=414,
                code="address_too_long",
                title="The address is too long",
                detail=f"Path and query may have at most {MAX_ADDRESS_BYTES} bytes together.",
            )
            await refusal(scope, receive, send)
        elif _is_large(scope["headers"]):
            refusal = ProblemResponse(
                Request(scope),
                status=431,
                code="headers_too_large",
                title="The headers are too large",
                detail=f"There may be {MAX_HEADERS} headers of {MAX_HEADER_BYTES} bytes together.",
            )
            await refusal(scope, receive, send)
        else:
            await self.app(scope, receive, send)


def _is_large(headers: list[tuple[bytes, bytes]]) -> bool:
    return (
        len(headers) > MAX_HEADERS
        or sum(len(name) + len(value) for name, value in headers) > MAX_HEADER_BYTES
    )
