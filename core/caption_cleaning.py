"""What happens to a caption between its source and the set: normalised, measured, kept once or dropped.

Captions are brought to Unicode's composed form (NFC), as CLIP's tokenizer does, and any run of white space
becomes one space. Letter case stays.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

import numpy as np

from core.spec import CaptionLimits

UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
RECENT_DIGESTS = 1 << 18


@dataclass
class CaptionReport:
    """What became of the captions that were read.

    Attributes
    ----------
    read
        How many there were.
    dropped
        How many were left out for each reason: ``empty``, ``unprintable`` characters, ``too_short``,
        ``too_long``, ``duplicate``.
    """

    read: int = 0
    dropped: Counter[str] = field(default_factory=Counter)

    @property
    def kept(self) -> int:
        """How many went on."""
        return self.read - self.dropped.total()

    def __str__(self) -> str:
        reasons = [f"{count:,} {reason.replace('_', ' ')}" for reason, count in self.dropped.most_common()]
        return ", ".join([f"{self.read:,} read", *reasons])

    def as_json(self) -> dict[str, Any]:
        """Return the report as events and results hold it."""
        return {"read": self.read, "kept": self.kept, "dropped": dict(sorted(self.dropped.items()))}


def clean_captions(captions: Iterable[str], limits: CaptionLimits, report: CaptionReport) -> Iterator[str]:
    """Yield the captions worth keeping, normalised, each at its first place; count all others."""
    seen = SeenTexts()
    for caption in captions:
        report.read += 1
        text = normalise(caption)
        if reason := _reason_to_drop(text, limits, seen):
            report.dropped[reason] += 1
        else:
            yield text


def normalise(caption: str) -> str:
    """Return a caption in composed form, its white space single and none around it."""
    return " ".join(unicodedata.normalize("NFC", caption).split())


class SeenTexts:
    """Remembers texts by 64-bit hashes, 8 bytes each where a set of strings takes over 100.

    Of 20 million different texts, the chance that any two share a hash is about one in 90,000; the later one
    would be taken for a repetition.
    """

    def __init__(self) -> None:
        self._old = np.empty(0, np.uint64)  # sorted
        self._recent: set[int] = set()

    def add(self, text: str) -> bool:
        """Remember a text and return whether it is new."""
        digest = int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little")
        if digest in self._recent or self._is_old(digest):
            return False
        self._recent.add(digest)
        if len(self._recent) == RECENT_DIGESTS:
            recent = np.fromiter(self._recent, np.uint64, len(self._recent))
            self._old = np.sort(np.concatenate([self._old, recent]))
            self._recent.clear()
        return True

    def _is_old(self, digest: int) -> bool:
        place = int(self._old.searchsorted(np.uint64(digest)))
        return place < len(self._old) and int(self._old[place]) == digest


def _reason_to_drop(text: str, limits: CaptionLimits, seen: SeenTexts) -> str | None:
    if not text:
        return "empty"
    if UNPRINTABLE.search(text):
        return "unprintable"
    if len(text) < limits.min_characters:
        return "too_short"
    if len(text) > limits.max_characters:
        return "too_long"
    return None if seen.add(text) else "duplicate"
