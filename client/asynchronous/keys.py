"""API keys of the caller's tenant."""

import builtins
from collections.abc import AsyncIterator, Iterable
from datetime import datetime
from typing import Any

from client.models import CreatedKey, KeyState, Page
from client.transport import Transport, model_of


class AsyncKeys:
    """The keys of the caller's tenant; `Keys`, awaited."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def create(
        self, name: str, scopes: Iterable[str], *, expires_at: datetime | None = None
    ) -> CreatedKey:
        """Make a key, as `Keys.create` does; the request is never sent twice."""
        body: dict[str, Any] = {"name": name, "scopes": sorted(scopes)}
        if expires_at is not None:
            body["expires_at"] = expires_at.isoformat()
        answer = await self._transport.request("POST", "/keys", body=body, patience_seconds=0)
        return model_of(CreatedKey, answer)

    def iterate(self) -> AsyncIterator[KeyState]:
        """Yield all keys, revoked ones too, the newest first."""
        return self._transport.items(Page[KeyState], "/keys")

    async def list(self) -> builtins.list[KeyState]:
        """List all keys, revoked ones too, the newest first."""
        return [key async for key in self.iterate()]

    async def revoke(self, key_id: str) -> None:
        """Revoke a key for good; `NotFoundError` if there is none of that id."""
        await self._transport.request("DELETE", f"/keys/{key_id}")
