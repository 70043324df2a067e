"""Answers that wait for news: a resource with a version is read, and read again once it has another one."""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Protocol, TypeVar

from fastapi import Header, Query, Response

from api.openapi import Responses
from api.request_headers import entity_tag, matches
from api.tenant_services import TenantServices

MAX_WAIT_SECONDS = 60

Wait = Annotated[
    float, Query(ge=0, le=MAX_WAIT_SECONDS, description="Seconds to wait for a change.", examples=[30])
]
IfNoneMatch = Annotated[str | None, Header(description="ETag of the version that the client has.")]
CHANGES: Responses = {
    200: {"headers": {"ETag": {"description": "Of its version.", "schema": {"type": "string"}}}},
    304: {"description": "It still has the version in If-None-Match."},
}


class Versioned(Protocol):
    """What can be waited for."""

    id: str
    version: int


Resource = TypeVar("Resource", bound=Versioned)


async def answer_news(
    services: TenantServices,
    response: Response,
    read: Callable[[], Awaitable[Resource]],
    *,
    wait: float,
    if_none_match: str | None,
    has_ended: Callable[[Resource], bool],
) -> Any:
    """Read a resource, at once or as soon as it has changed.

    Parameters
    ----------
    services
        Of the caller.
    response
        Gets the ETag.
    read
        Reads the resource.
    wait
        Seconds to wait for another version than the one that the client has or, if it names none, than the
        present one.
    if_none_match
        The client's header; a version still the same is answered with 304.
    has_ended
        Whether nothing will change any more.
    """
    found = await read()
    is_news = if_none_match is not None and not matches(if_none_match, found.version)
    if (
        wait
        and not is_news
        and not has_ended(found)
        and await services.watch.changed(found.id, found.version, timeout_seconds=wait)
    ):
        found = await read()
    headers = {"ETag": entity_tag(found.version)}
    if matches(if_none_match, found.version):
        return Response(status_code=304, headers=headers)
    response.headers.update(headers)
    return found
