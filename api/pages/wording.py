"""Numbers and times in words: the filters of the templates."""

from datetime import UTC, datetime
from typing import Any

_STEPS = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))
_BYTES = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"))
_COUNTS = ((1e9, "G"), (1e6, "M"), (1e3, "k"))
PHASES = {
    "captions": "Captions",
    "latents": "Teacher pictures",
    "training": "Training",
    "few_step": "Few-step transfer",
    "evaluation": "Evaluation",
    "export": "Export",
}
SPLITS = {"drawn": "Drawn captions", "text_only": "Text-only captions", "held_out": "Held-out captions"}
SCORES = {
    "frechet_distance": "Fréchet distance",
    "kid": "KID",
    "cmmd": "CMMD",
    "clip_score": "CLIP score",
    "precision": "Precision",
    "recall": "Recall",
    "inception_score": "Inception score",
    "nearest_top1": "Nearest reference, top 1",
    "nearest_top5": "Nearest reference, top 5",
}
LOWER_IS_BETTER = frozenset({"frechet_distance", "kid", "cmmd"})


def duration(seconds: float) -> str:
    """Write a length of time in its two largest units."""
    rest = round(seconds)
    if 0 < seconds < 1:
        return "under 1 s"
    for position, (size, unit) in enumerate(_STEPS):
        if rest >= size:
            count, rest = divmod(rest, size)
            smaller = _STEPS[position + 1] if position + 1 < len(_STEPS) else None
            tail = f" {rest // smaller[0]} {smaller[1]}" if smaller and rest >= smaller[0] else ""
            return f"{count} {unit}{tail}"
    return "0 s"


def age(moment: datetime, now: datetime | None = None) -> str:
    """Say how long ago a moment was, or how far ahead it is, in its largest unit."""
    seconds = ((now or datetime.now(UTC)) - moment).total_seconds()
    if abs(seconds) < 1:
        return "just now"
    size, unit = next(((size, unit) for size, unit in _STEPS if abs(seconds) >= size), _STEPS[-1])
    count = f"{int(abs(seconds) // size)} {unit}"
    return f"{count} ago" if seconds > 0 else f"in {count}"


def exact(moment: datetime) -> str:
    """Write a moment to the second."""
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def size(count: float) -> str:
    """Write a number of bytes."""
    factor, unit = next(((factor, unit) for factor, unit in _BYTES if count >= factor), (1, "bytes"))
    return f"{count / factor:.1f} {unit}" if factor > 1 else f"{int(count)} {unit}"


def count(number: float) -> str:
    """Write a large number of things in thousands or millions."""
    factor, unit = next(((factor, unit) for factor, unit in _COUNTS if number >= factor), (1, ""))
    return f"{number / factor:.1f} {unit}" if unit else f"{number:,.0f}"


def figure(number: float) -> str:
    """Write a measured number to three significant digits."""
    return f"{number:,.0f}" if abs(number) >= 1_000 else f"{number:.3g}"


def share(fraction: float) -> str:
    """Write a fraction in whole per cent; only what is complete is 100 %."""
    return f"{min(int(fraction * 100), 100)} %"


def phase(name: str) -> str:
    """Name a phase."""
    return PHASES.get(name, name)


FILTERS: dict[str, Any] = {
    "age": age,
    "count": count,
    "duration": duration,
    "exact": exact,
    "figure": figure,
    "phase": phase,
    "share": share,
    "size": size,
}
