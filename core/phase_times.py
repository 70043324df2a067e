"""How long the phases of a job took, by the record that it left; free of torch."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any


def phase_seconds(events: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Return how long each phase of a job took, by its record; what a stopped run left undone counts too.

    Parameters
    ----------
    events
        The lines of ``events.jsonl``, in order.
    """
    seconds: dict[str, float] = {}
    phase, begun, at = "", None, None
    for event in events:
        last, at = at, datetime.fromisoformat(event["at"])
        if event["type"] == "phase":
            # A phase lasts up to the next; that of a run which was stopped, up to its last event.
            end = at if event["phase"] != "captions" else last
            if begun and end:
                seconds[phase] = seconds.get(phase, 0.0) + (end - begun).total_seconds()
            phase, begun = event["phase"], at
    if begun and at:
        seconds[phase] = seconds.get(phase, 0.0) + (at - begun).total_seconds()
    return seconds
