"""Captions that must never be drawn, told by the words in them.

This is how a concept is kept unseen: with "polar bear" held out, no caption that says so gets a picture, and
the student can learn the concept from text alone.
"""

import re
from collections import defaultdict
from collections.abc import Iterable

WORD = re.compile(r"\w+")


class HoldOut:
    """The captions that hold one of some words or phrases; ``text in hold_out`` says whether one does.

    Whole words are compared, without letter case and punctuation: "cat" is in "Cat, sleeping", not in
    "cattle" or "cats". The time of a comparison does not grow with the number of phrases.

    Parameters
    ----------
    phrases
        Words, phrases, or whole captions.

    Raises
    ------
    ValueError
        If one of them holds no word.
    """

    def __init__(self, phrases: Iterable[str]) -> None:
        self._by_first_word: defaultdict[str, set[tuple[str, ...]]] = defaultdict(set)
        for number, phrase in enumerate(phrases, start=1):
            words = _words(phrase)
            if not words:
                raise ValueError(f"phrase {number} holds no word")
            self._by_first_word[words[0]].add(words)

    def __bool__(self) -> bool:
        return bool(self._by_first_word)

    def __contains__(self, text: str) -> bool:
        words = _words(text)
        return any(
            words[start : start + len(phrase)] == phrase
            for start, word in enumerate(words)
            for phrase in self._by_first_word.get(word, ())
        )


def _words(text: str) -> tuple[str, ...]:
    return tuple(WORD.findall(text.casefold()))
