"""Events read off the bytes of a stream."""

from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime

import pytest
from fastapi.sse import format_sse_event

from client.blocking import iterate
from client.event_stream import parse_events
from client.models import Event

# Python counts them among the ends of lines; server-sent events and JSON do not.
BEGINNING = datetime(2026, 1, 2, tzinfo=UTC)
TEXT = "one\u2028two\u2029three\u0085four\x0bfive\r\nsix"


def stream(*events: Event) -> bytes:
    return b"".join(
        format_sse_event(id=str(event.sequence), event=event.type, data_str=event.model_dump_json())
        for event in events
    )


async def in_blocks(content: bytes, size: int) -> AsyncIterator[bytes]:
    for start in range(0, len(content), size):
        yield content[start : start + size]


def parse(content: bytes, size: int) -> Sequence[Event]:
    return list(iterate(parse_events(in_blocks(content, size))))


@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_events_are_the_same_however_the_stream_is_cut_and_whatever_they_say(size: int) -> None:
    events = [
        Event(sequence=number, at=BEGINNING, attempt=1, type="log", data={"text": TEXT}) for number in (1, 2)
    ]
    content = stream(*events)
    assert parse(content, size) == events
    assert parse(content.replace(b"\n", b"\r\n"), size) == events
    assert parse(content[:-1], size) == events[:1], "the last is cut off at its end"
