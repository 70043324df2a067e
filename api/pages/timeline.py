"""The phases of a job as a bar whose parts are as long as they took."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Self

from store.phases import PhaseSpan

WIDTH = 1_000
LEAST_WIDTH = 6  # so that the shortest phase is seen


@dataclass(frozen=True)
class Part:
    """A phase of one attempt, and where it lies in the bar."""

    span: PhaseSpan
    seconds: float
    x: float
    width: float


@dataclass(frozen=True)
class Timeline:
    """All phases of a job in order; ``attempts`` is how many it took."""

    parts: list[Part]
    attempts: int

    @classmethod
    def of(cls, spans: Sequence[PhaseSpan], now: datetime) -> Self:
        """Lay phases out; one that lasts is as long as it has lasted until now."""
        lengths = [
            span.seconds if span.seconds is not None else max((now - span.began).total_seconds(), 0)
            for span in spans
        ]
        total = sum(lengths) or 1
        widths = [max(length / total * WIDTH, LEAST_WIDTH) for length in lengths]
        scale = WIDTH / sum(widths) if widths else 1
        parts, x = [], 0.0
        for span, length, width in zip(spans, lengths, widths, strict=True):
            parts.append(Part(span, length, round(x, 2), round(width * scale, 2)))
            x += width * scale
        return cls(parts, len({span.attempt for span in spans}))
