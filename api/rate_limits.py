"""How many requests a key may send, counted in Valkey for all API processes together.

Every answer to a request with a key says where it stands, in the fields of the IETF draft
"RateLimit header fields for HTTP" (draft-ietf-httpapi-ratelimit-headers).
"""

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from limits import RateLimitItemPerMinute
from limits.errors import StorageError
from limits.storage import RedisStorage
from limits.strategies import SlidingWindowCounterRateLimiter

from api.errors import RateLimitedError
from store.settings import Settings

LOGGER = logging.getLogger(__name__)

WINDOW_SECONDS = 60
SILENCE_SECONDS = 0.25
AWAY_SECONDS = 5.0
POLICY = "key"


@dataclass(frozen=True)
class Standing:
    """Where a key stands after a request."""

    limit: int
    remaining: int
    reset_seconds: int

    def headers(self) -> dict[str, str]:
        """Say so in response headers."""
        return {
            "RateLimit-Policy": f'"{POLICY}";q={self.limit};w={WINDOW_SECONDS}',
            "RateLimit": f'"{POLICY}";r={self.remaining};t={self.reset_seconds}',
        }


class RateLimits:
    """Counts requests in a window that slides; safe to use from many threads.

    While Valkey is away requests pass uncounted. Jobs are taken then, too: Postgres is the truth and Valkey
    only a help, and to refuse everybody because nobody can be counted would make the limit a worse outage
    than what it protects from. Quotas, which are in Postgres, hold meanwhile.

    Parameters
    ----------
    settings
        The limit, and where Valkey is. It connects on first use.
    clock
        Seconds that only grow.
    """

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._asked_again_at = 0.0
        self._limit = settings.rate_limit_per_minute
        self._storage = RedisStorage(
            settings.redis_url,
            key_prefix="condenser-rate",
            wrap_exceptions=True,
            socket_connect_timeout=SILENCE_SECONDS,
            socket_timeout=SILENCE_SECONDS,
        )
        self._limiter = SlidingWindowCounterRateLimiter(self._storage)

    def count(self, key_id: str) -> Standing | None:
        """Count a request, and say where its key stands; None when nobody counts.

        Raises
        ------
        RateLimitedError
            If it is one too many.
        """
        if self._limit is None or self._clock() < self._asked_again_at:
            return None
        item = RateLimitItemPerMinute(self._limit)
        try:
            may_pass = self._limiter.hit(item, key_id)
            reset_at, remaining = self._limiter.get_window_stats(item, key_id)
        except StorageError as error:
            # Asked at every request, a server that is silent rather than gone would slow each of them down.
            self._asked_again_at = self._clock() + AWAY_SECONDS
            LOGGER.warning("requests are not counted for %.0f s: %r", AWAY_SECONDS, error.storage_error)
            return None
        reset_seconds = max(math.ceil(reset_at - time.time()), 1)
        if not may_pass:
            raise RateLimitedError(
                f"{self._limit} requests a minute may be sent with one key. Try again in {reset_seconds} s.",
                retry_after_seconds=reset_seconds,
            )
        return Standing(self._limit, remaining, reset_seconds)

    def close(self) -> None:
        """Close the connections."""
        self._storage.storage.close()
