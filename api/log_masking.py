"""Keeps API keys out of the server's log.

A key belongs into the Authorization header, which is never logged. A client may put it into a path or a query
by mistake, and those are.
"""

import logging

from store.key_format import masked


class KeyMask(logging.Filter):
    """Replaces all but the beginning of every key in a record."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Pass every record on, without keys."""
        if isinstance(record.args, tuple):
            record.args = tuple(masked(part) if isinstance(part, str) else part for part in record.args)
        return True


def mask_keys_in_logs() -> None:
    """Filter what the server logs of requests; calling it again changes nothing."""
    logger = logging.getLogger("uvicorn.access")
    if not any(isinstance(known, KeyMask) for known in logger.filters):
        logger.addFilter(KeyMask())
