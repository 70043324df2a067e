"""A job's events as they happen, over server-sent events that are reopened where they broke off.

References
----------
HTML Living Standard, section 9.2, "Server-sent events".
"""

from collections.abc import AsyncIterator

import httpx

from client.errors import ApiUnreachableError, RateLimitedError, UnavailableError
from client.models import Event
from client.patience import LONG_PATIENCE_SECONDS, Patience
from client.transport import Transport, media_type_of, unexpected

# The service sends a comment every 15 s; a stream that is silent for longer is dead.
SILENCE_SECONDS = 60.0
EVENT_STREAM = "text/event-stream"


async def stream_events(transport: Transport, path: str, after: int) -> AsyncIterator[Event]:
    """Yield every event after a sequence number, once and in order, up to the one that ends the job.

    Raises
    ------
    ApiUnreachableError
        If the service stays away for ten minutes.
    UnexpectedAnswerError
        If something else answers in its place.
    """
    patience = Patience(transport.connection, LONG_PATIENCE_SECONDS)
    while True:
        headers = {"Accept": EVENT_STREAM, "Last-Event-ID": str(after)}
        try:
            async with transport.stream(path, headers=headers, silence_seconds=SILENCE_SECONDS) as response:
                if response.status_code == httpx.codes.NO_CONTENT:
                    return
                if media_type_of(response) != EVENT_STREAM:
                    raise unexpected(response)
                patience.renew()  # though nothing may happen for days before it breaks again
                async for event in parse_events(transport.connection.blocks(response)):
                    after = event.sequence
                    yield event
            # The service ended the stream: for good if the next answer says so, as it does of an ended job.
        except (httpx.TransportError, UnavailableError, RateLimitedError) as error:
            failure = transport.absence(error)
            if not await patience.pause(failure):
                raise ApiUnreachableError(failure) from error


async def parse_events(blocks: AsyncIterator[bytes]) -> AsyncIterator[Event]:
    """Read events off a stream as it comes; an event that is cut off at its end is dropped."""
    data: list[str] = []
    async for line in _lines(blocks):
        if line.startswith("data:"):
            data.append(line.removeprefix("data:").removeprefix(" "))
        elif not line and data:
            yield Event.model_validate_json("\n".join(data))
            data = []


async def _lines(blocks: AsyncIterator[bytes]) -> AsyncIterator[str]:
    """Cut a stream where its format does; httpx also cuts at U+2028 and others, which JSON may contain."""
    begun = b""
    async for block in blocks:
        *lines, begun = (begun + block).split(b"\n")
        for line in lines:
            yield line.removesuffix(b"\r").decode()
