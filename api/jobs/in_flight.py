"""Idempotency keys whose first request is being worked on at this moment.

The store alone makes sure that a key creates one job, across all processes: there a second request waits for
the first. This spares a client of the same process the wait and tells it that its first request is under way.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from api.errors import RequestInProgressError


class InFlightKeys:
    """The keys of the requests under way in this process; safe to use from many threads."""

    def __init__(self) -> None:
        self._keys: set[tuple[str, str]] = set()
        self._lock = threading.Lock()

    @contextmanager
    def hold(self, tenant_id: str, idempotency_key: str | None) -> Iterator[None]:
        """Hold a tenant's key while its request is worked on; `RequestInProgressError` when it is held."""
        if idempotency_key is None:
            yield
            return
        key = (tenant_id, idempotency_key)
        with self._lock:
            if key in self._keys:
                raise RequestInProgressError(
                    "The first request with this idempotency key is still being worked on. Try again.",
                    field="Idempotency-Key",
                )
            self._keys.add(key)
        try:
            yield
        finally:
            with self._lock:
                self._keys.discard(key)
