"""API keys of the caller's tenant."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from client.models import CreatedKey, KeyState, Page
from client.transport import Transport

PAGE = 200


class Keys:
    """The keys of the caller's tenant; a key with the scope ``admin`` is needed."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def create(self, name: str, scopes: Iterable[str], *, expires_at: datetime | None = None) -> CreatedKey:
        """Make a key.

        Its answer cannot be had again: when it gets lost on its way, the request is not sent once more, and
        the key that may have been made is to be revoked.

        Parameters
        ----------
        name
            What it is for.
        scopes
            Of ``read``, ``write`` and ``admin``; no more than the caller's own key has.
        expires_at
            A time with its zone; never by default.
        """
        body: dict[str, Any] = {"name": name, "scopes": sorted(scopes)}
        if expires_at is not None:
            body["expires_at"] = expires_at.isoformat()
        answer = self._transport.request("POST", "/keys", body=body, once=True)
        return CreatedKey.model_validate(answer.json())

    def list(self) -> Sequence[KeyState]:
        """List all keys, revoked ones too, the newest first."""
        found: list[KeyState] = []
        cursor: str | None = None
        while True:
            page = self._transport.read(Page[KeyState], "/keys", parameters={"limit": PAGE, "after": cursor})
            found += page.items
            cursor = page.next
            if not page.has_more:
                return found

    def revoke(self, key_id: str) -> None:
        """Revoke a key for good; `NotFoundError` if there is none of that id."""
        self._transport.request("DELETE", f"/keys/{key_id}")
