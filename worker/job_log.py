"""Log lines that say which job and attempt they are about, as fields of the record."""

import logging
from collections.abc import MutableMapping
from typing import Any


class JobLogger(logging.LoggerAdapter[logging.Logger]):
    """A logger for one attempt at one job.

    Parameters
    ----------
    logger
        Where the lines go.
    job_id, attempt
        What they are about.
    """

    def __init__(self, logger: logging.Logger, *, job_id: str, attempt: int) -> None:
        super().__init__(logger, {"job_id": job_id, "attempt": attempt})

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        """Put the ids among the record's fields, beside those of the call."""
        kwargs["extra"] = {**(self.extra or {}), **(kwargs.get("extra") or {})}
        return msg, kwargs
