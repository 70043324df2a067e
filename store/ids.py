"""Identifiers of jobs and of messages about them: UUIDs of version 7, which sort by their time."""

import secrets
from datetime import datetime
from uuid import UUID

from store.errors import NotFoundError


def new_job_id(now: datetime) -> str:
    """Make an id for a job, or for whatever else is listed by the time of its making, created at ``now``.

    Parameters
    ----------
    now
        Its milliseconds lead the id, so ids of later jobs sort after those of earlier ones.

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


def parse_job_id(text: str) -> str:
    """Bring an id from outside into its one written form; `NotFoundError` when it cannot be an id."""
    return parse_id(text, "job")


def parse_id(text: str, thing: str) -> str:
    """Do the same for the id of any thing, which the error names."""
    try:
        return str(UUID(text))
    except ValueError:
        raise NotFoundError(f"There is no such {thing}.") from None
