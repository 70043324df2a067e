"""Who the bearer of a key is, asked of the database and remembered for a few seconds.

Without the memory a client that polls would cost a second transaction with every request. Its price is that
a key that was revoked through another process is good for `Settings.key_cache_seconds` more. The memory
holds digests, never keys, and only of keys that were good.
"""

import threading
import time
from collections.abc import Callable

from store.api_keys import Bearer, Caller, find_bearer, find_caller
from store.database import Engine, server_now, transaction
from store.errors import MalformedApiKeyError
from store.key_format import digest_of, is_well_formed
from store.settings import Settings

MOST_REMEMBERED = 10_000


class KeyChecks:
    """Checks keys; safe to use from many threads.

    Parameters
    ----------
    engine
        The database.
    settings
        The pepper, and for how long a check counts.
    clock
        Seconds that only grow.
    """

    def __init__(
        self, engine: Engine, settings: Settings, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.pepper = settings.required_pepper()
        self._engine = engine
        self._seconds = settings.key_cache_seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._known: dict[str, tuple[float, Caller]] = {}
        self._bearers: dict[str, tuple[float, Bearer]] = {}

    def remembered(self, key: str) -> Caller | None:
        """Name the bearer of a key that was checked a moment ago; never waits."""
        checked = self._known.get(digest_of(key, self.pepper))
        if checked is None or checked[0] <= self._clock():
            return None
        return checked[1]

    def find(self, key: str) -> Caller:
        """Name the bearer of a key; `UnauthenticatedError` when it is not good."""
        if not is_well_formed(key):
            raise MalformedApiKeyError(
                "What was sent is not an API key: a character is wrong, or it was cut off."
            )
        with transaction(self._engine) as session:
            caller = find_caller(session, key=key, pepper=self.pepper, now=server_now(session))
        self.remember(key, caller)
        return caller

    def remember(self, key: str, caller: Caller) -> None:
        """Take a key for good without asking, until the time is over."""
        with self._lock:
            if len(self._known) >= MOST_REMEMBERED:
                self._known.clear()
            self._known[digest_of(key, self.pepper)] = (self._clock() + self._seconds, caller)

    def find_by_id(self, key_id: str) -> Bearer:
        """Name the bearer of a key by its id; `UnauthenticatedError` when it is good no more."""
        checked = self._bearers.get(key_id)
        if checked is not None and checked[0] > self._clock():
            return checked[1]
        with transaction(self._engine) as session:
            bearer = find_bearer(session, key_id=key_id, now=server_now(session))
        with self._lock:
            if len(self._bearers) >= MOST_REMEMBERED:
                self._bearers.clear()
            self._bearers[key_id] = (self._clock() + self._seconds, bearer)
        return bearer

    def forget(self, key_id: str) -> None:
        """Ask the database again when a key comes next."""
        with self._lock:
            self._bearers.pop(key_id, None)
            self._known = {
                digest: checked for digest, checked in self._known.items() if checked[1].key_id != key_id
            }
