"""API keys of the caller's tenant."""

import builtins
from collections.abc import Iterable, Iterator
from datetime import datetime

from client.asynchronous.keys import AsyncKeys
from client.blocking import iterate, run
from client.models import CreatedKey, KeyState


class Keys:
    """The keys of the caller's tenant; a key with the scope ``admin`` is needed."""

    def __init__(self, keys: AsyncKeys) -> None:
        self._keys = keys

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
        return run(self._keys.create(name, scopes, expires_at=expires_at))

    def iterate(self) -> Iterator[KeyState]:
        """Yield all keys, revoked ones too, the newest first."""
        return iterate(self._keys.iterate())

    def list(self) -> builtins.list[KeyState]:
        """List all keys, revoked ones too, the newest first."""
        return run(self._keys.list())

    def revoke(self, key_id: str) -> None:
        """Revoke a key for good; `NotFoundError` if there is none of that id."""
        run(self._keys.revoke(key_id))
