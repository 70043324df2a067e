"""Captions that must never be drawn, told by the words in them.

This is how a concept is kept unseen: with "polar bear" held out, no caption that says so gets a picture, and
the student can learn the concept from text alone.
"""

import unicodedata
from collections import defaultdict
from collections.abc import Iterable


class HoldOut:
    """The captions that hold one of some words or phrases; ``text in hold_out`` says whether one does.

    Whole words are compared, without letter case, punctuation, and the different ways that Unicode has to
    write one letter: "cat" is in "Cat, sleeping", not in "cattle" or "cats". The time of a comparison does
    not grow with the number of phrases.

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
        words = _words(text) if self else ()
        return any(
            words[start : start + len(phrase)] == phrase
            for start, word in enumerate(words)
            for phrase in self._by_first_word.get(word, ())
        )


def _words(text: str) -> tuple[str, ...]:
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return tuple("".join(letter if _is_in_word(letter) else " " for letter in folded).split())


def _is_in_word(letter: str) -> bool:
    """Return whether a character is no boundary of words; marks, such as Hindi's vowel signs, are none."""
    return letter.isalnum() or letter == "_" or unicodedata.category(letter).startswith("M")
