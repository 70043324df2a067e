"""Log lines of one shape in every process of the service: API, worker and trainer.

Code logs through the standard library. Here alone is said what becomes of a record: on a terminal a line for
people, elsewhere a JSON object a line, with the ids that the process, the context or the call gave it. Lines
of libraries come in the same shape. What looks like a credential is blotted out of the finished line, however
it got there.

This lies in `core` because the trainer needs it and knows nothing else of the service; it is free of torch.
"""

import json
import logging
import re
import sys
from collections.abc import Collection, Mapping
from typing import Any, Literal, TextIO, get_args

import structlog
from structlog.dev import plain_traceback
from structlog.typing import EventDict, Processor, WrappedLogger

LogFormat = Literal["auto", "json", "console"]
"""``auto`` writes for people on a terminal and JSON elsewhere."""

FORMAT_VARIABLE = "LOG_FORMAT"
FIELDS_VARIABLE = "LOG_FIELDS"
"""Variables that tell a process without settings its format, and a JSON object of fields for each line."""

REDACTED = "[redacted]"
_SHORTEST_SECRET = 6  # blotting out anything shorter would spoil other words
_CREDENTIALS = (
    (re.compile(r"\?[^\s\"'<>\\]*X-Amz-[^\s\"'<>\\]*", re.IGNORECASE), f"?{REDACTED}"),  # a presigned link
    (re.compile(r"(?<=[?&]signature=)[0-9a-f]{64}"), REDACTED),  # a link to a file
    (re.compile(r"(\b[a-z][a-z0-9+.-]*://)[^\s/@\"']*:[^\s/@\"']*@", re.IGNORECASE), rf"\1{REDACTED}@"),
    (
        re.compile(r"\b(condenser_[0-9A-Za-z]{6})[0-9A-Za-z]{32}"),
        rf"\1{REDACTED}",
    ),  # an API key
    (re.compile(r"\b(bearer|basic)\s+[\w.~+/-]{6,}=*", re.IGNORECASE), rf"\1 {REDACTED}"),
)
_FOREIGN_FIELDS = ("color_message", "data")  # uvicorn's line in colour; celery's message with its arguments


def configure_logging(
    process: str,
    *,
    log_format: LogFormat = "auto",
    fields: Mapping[str, Any] | None = None,
    secrets: Collection[str] = (),
    stream: TextIO | None = None,
    level: int = logging.INFO,
) -> None:
    """Send every record of this process to a stream, each as one line.

    Loggers that libraries gave handlers of their own lose them. Where the root logger has handlers already,
    somebody else is in charge, and nothing is changed.

    Parameters
    ----------
    process
        What this process is: ``api``, ``worker`` or ``trainer``.
    log_format
        The lines' shape.
    fields
        Further fields of every line.
    secrets
        Texts that no line may hold.
    stream
        Where to; standard error by default.
    level
        The least level that is written.
    """
    root = logging.getLogger()
    if root.hasHandlers():
        return
    stream = stream or sys.stderr
    is_for_people = log_format == "console" or (log_format == "auto" and stream.isatty())
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        _RedactingFormatter({"process": process, **(fields or {})}, secrets, is_for_people, stream.isatty())
    )
    _free_loggers()
    root.addHandler(handler)
    root.setLevel(level)
    logging.captureWarnings(True)


def configure_from_environment(process: str, environ: Mapping[str, str]) -> None:
    """Configure a process that has no settings, by the variables that its parent set."""
    named = environ.get(FORMAT_VARIABLE, "auto").lower()
    log_format: LogFormat = next((known for known in get_args(LogFormat) if known == named), "auto")
    configure_logging(
        process, log_format=log_format, fields=json.loads(environ.get(FIELDS_VARIABLE, "") or "{}")
    )


class _RedactingFormatter(structlog.stdlib.ProcessorFormatter):
    def __init__(
        self, fields: Mapping[str, Any], secrets: Collection[str], is_for_people: bool, colours: bool
    ) -> None:
        def add_fields(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
            for name in _FOREIGN_FIELDS:
                event.pop(name, None)
            return {**fields, **event}

        rendering: list[Processor] = (
            [
                # Not the colourful traceback: that one shows the values of variables.
                structlog.dev.ConsoleRenderer(colors=colours, exception_formatter=plain_traceback)
            ]
            if is_for_people
            else [
                structlog.processors.format_exc_info,
                structlog.processors.EventRenamer("message"),
                structlog.processors.JSONRenderer(),
            ]
        )
        super().__init__(
            foreign_pre_chain=[
                structlog.contextvars.merge_contextvars,
                structlog.stdlib.ExtraAdder(),
                structlog.stdlib.add_log_level,
                structlog.stdlib.add_logger_name,
                structlog.processors.TimeStamper(fmt="iso", utc=True, key="at"),
                add_fields,
            ],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendering],
        )
        spellings = {spelling for secret in secrets for spelling in (secret, json.dumps(secret)[1:-1])}
        long_enough = sorted((s for s in spellings if len(s) >= _SHORTEST_SECRET), key=len, reverse=True)
        self._secrets = re.compile("|".join(map(re.escape, long_enough))) if long_enough else None

    def format(self, record: logging.LogRecord) -> str:
        line = super().format(record)
        for pattern, replacement in _CREDENTIALS:
            line = pattern.sub(replacement, line)
        return self._secrets.sub(REDACTED, line) if self._secrets else line


def _free_loggers() -> None:
    """Take their own handlers from all loggers, so that their records go the way of all others."""
    for logger in logging.root.manager.loggerDict.values():
        if isinstance(logger, logging.Logger) and logger.handlers:
            logger.handlers.clear()
            logger.propagate = True
