"""Request headers that routes read: media types, keys and entity tags."""

import re
from typing import Annotated

from fastapi import Depends, Header, Request

from api.errors import MalformedIdempotencyKeyError, UnsupportedMediaTypeError

_KEY = re.compile(r"[\x21-\x7e]{1,255}")


async def _require_json(request: Request) -> None:
    """Refuse a body that is not announced as JSON, such as an HTML form's."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise UnsupportedMediaTypeError("Send the body with Content-Type: application/json.")


async def _idempotency_key(
    idempotency_key: Annotated[
        str | None,
        Header(
            description="A unique key, such as a UUID. A request repeated with it within 24 hours gets the "
            "first answer again, and creates nothing.",
            examples=["8e03978e-40d5-43dd-bc93-6894a57f9324"],
        ),
    ] = None,
) -> str | None:
    """Read the key with or without the quotes that the IETF draft puts around it."""
    if idempotency_key is None:
        return None
    key = idempotency_key
    if len(key) >= 2 and key[0] == key[-1] == '"':
        key = key[1:-1]
    if not _KEY.fullmatch(key):
        raise MalformedIdempotencyKeyError(
            "Idempotency-Key must be 1 to 255 visible ASCII characters.", field="Idempotency-Key"
        )
    return key


RequireJson = Depends(_require_json)
IdempotencyKeyHeader = Annotated[str | None, Depends(_idempotency_key)]


def accepts(request: Request, media_type: str) -> bool:
    """Tell whether the client asks for a media type by name."""
    ranges = request.headers.get("accept", "").lower().split(",")
    return any(entry.partition(";")[0].strip() == media_type for entry in ranges)


def entity_tag(version: int) -> str:
    """Make the weak entity tag of a version."""
    return f'W/"{version}"'


def matches(if_none_match: str | None, version: int) -> bool:
    """Tell whether an If-None-Match header names this version."""
    if if_none_match is None:
        return False
    tags = {tag.strip().removeprefix("W/") for tag in if_none_match.split(",")}
    return "*" in tags or f'"{version}"' in tags
