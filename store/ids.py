"""Identifiers: UUIDs of version 7, which sort by the time of their making."""

import secrets
from datetime import datetime
from uuid import UUID

from store.errors import InvalidCursorError, NotFoundError


def new_id(now: datetime) -> str:
    """Make an id for something created at ``now``.

    Parameters
    ----------
    now
        Its milliseconds lead the id, so ids of later things sort after those of earlier ones.

    References
    ----------
    RFC 9562, section 5.7.
    """
    milliseconds = int(now.timestamp() * 1_000)
    random_bits = secrets.randbits(74)
    value = (milliseconds & (2**48 - 1)) << 80
    value |= 0x7 << 76
    value |= (random_bits >> 62) << 64
    value |= 0b10 << 62
    value |= random_bits & (2**62 - 1)
    return str(UUID(int=value))


def new_job_id(now: datetime) -> str:
    """Make an id for a job created at ``now``."""
    return new_id(now)


def parse_id(text: str, kind: str) -> str:
    """Bring an id from outside into its one written form; `NotFoundError` when it cannot be an id.

    Parameters
    ----------
    text
        What the client sent.
    kind
        What it should be the id of, in words.
    """
    try:
        return str(UUID(text))
    except ValueError:
        raise NotFoundError(f"There is no such {kind}.") from None


def parse_job_id(text: str) -> str:
    """Bring a job's id from outside into its one written form; `NotFoundError` when it cannot be one."""
    return parse_id(text, "job")


def parse_cursor(after: str) -> str:
    """Read the cursor of a page: the id of the last thing on the one before it; else `InvalidCursorError`."""
    try:
        return parse_id(after, "page")
    except NotFoundError:
        raise InvalidCursorError("The cursor did not come from this service.", field="after") from None
