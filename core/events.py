"""The record of what a job does: one JSON object a line, appended to a file that others tail.

The writer only appends; a reader may see an incomplete last line after a crash, and a writer that opens the
file again cuts that line off first.
"""

import json
import os
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from core.files import UNPAIRED

Phase = Literal["captions", "latents", "training", "few_step", "evaluation", "export"]
PROGRESS_INTERVAL_SECONDS = 0.5


class EventWriter:
    """Appends events to a file.

    Parameters
    ----------
    path
        The events file; it is made if it is not there. None for a process that reports nothing, as of the
        ranks of a job all but the first.
    """

    def __init__(self, path: Path | None) -> None:
        if path is None:
            path = Path(os.devnull)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            _cut_torn_line(path)
        self._file = path.open("a", encoding="utf-8", errors=UNPAIRED)

    def write(self, event_type: str, **fields: Any) -> None:
        """Append one event and hand it to the operating system."""
        event = {"at": datetime.now(UTC).isoformat(timespec="milliseconds"), "type": event_type, **fields}
        self._file.write(json.dumps(event, ensure_ascii=False, allow_nan=False) + "\n")
        self._file.flush()

    def phase(self, phase: Phase) -> None:
        """Say that a stage begins."""
        self.write("phase", phase=phase)

    def warning(self, message: str) -> None:
        """Tell the user something that does not end the job."""
        self.write("warning", message=message)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class Progress:
    """Reports how far a stage is, at most twice a second and always at its end.

    Parameters
    ----------
    events
        Where to report.
    phase, unit, total
        The stage, what it counts, and how many there are.
    done
        How many were done before this process began.
    """

    def __init__(self, events: EventWriter, phase: Phase, unit: str, total: int, done: int = 0) -> None:
        self._events, self._phase, self._unit, self._total = events, phase, unit, total
        self._done_before = self._done = done
        self._started = time.monotonic()
        self._reported = -PROGRESS_INTERVAL_SECONDS
        self._told: int | None = None

    def finish(self) -> None:
        """Report that all are done, unless that was reported."""
        if self._told != self._total:
            self.report(self._total)

    def advance(self, count: int) -> None:
        """Report that `count` more units are done."""
        self.report(self._done + count)

    def go_back(self, count: int) -> None:
        """Count as undone what has to be done again, and measure anew how fast that goes."""
        self._done -= count
        self._done_before, self._started = self._done, time.monotonic()

    def report(self, done: int) -> None:
        """Report that `done` units are done, at most all, unless the last report is too recent."""
        self._done = done = min(done, self._total)
        now = time.monotonic()
        if now - self._reported < PROGRESS_INTERVAL_SECONDS and done < self._total:
            return
        self._reported, self._told = now, done
        fresh = done - self._done_before
        eta = round((now - self._started) / fresh * (self._total - done), 1) if fresh else None
        self._events.write(
            "progress", phase=self._phase, done=done, total=self._total, unit=self._unit, eta_seconds=eta
        )


def _cut_torn_line(path: Path) -> None:
    if not path.exists():
        return
    with path.open("r+b") as file:
        content = file.read()
        file.truncate(content.rfind(b"\n") + 1)
