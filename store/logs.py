"""Log lines of the processes that have settings; their shape is `core.logs`'s."""

import json
from typing import Any

from core.logs import FIELDS_VARIABLE, FORMAT_VARIABLE, configure_logging
from store.settings import Settings

__all__ = ["child_environment", "configure"]


def configure(process: str, settings: Settings) -> None:
    """Configure the log of this process; none of its lines will hold a secret of the settings."""
    configure_logging(process, log_format=settings.log_format, secrets=settings.secrets())


def child_environment(settings: Settings, **fields: Any) -> dict[str, str]:
    """Make the variables by which a trainer logs in the same shape, with these fields in every line."""
    return {FORMAT_VARIABLE: settings.log_format, FIELDS_VARIABLE: json.dumps(fields)}
