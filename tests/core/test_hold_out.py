"""Holding captions out by their words."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.hold_out import HoldOut


@pytest.mark.parametrize(
    ("text", "held_out"),
    [
        ("cat", True),
        ("a Cat, sleeping", True),
        ("a cat's whiskers", True),
        ("cats", False),
        ("a cattle truck", False),
        ("a polar bear on ice", True),
        ("POLAR-BEAR", True),
        ("a polar station", False),
        ("a bear", False),
        ("a bear, polar", False),
        ("Straße im Schnee", True),
        ("", False),
    ],
)
def test_whole_words_and_phrases_are_held_out(text: str, held_out: bool) -> None:
    assert (text in HoldOut(["cat", "polar bear", "STRASSE"])) is held_out


@pytest.mark.parametrize(
    ("phrase", "text", "held_out"),
    [
        ("cafe\u0301", "a caf\u00e9 at night", True),
        ("caf\u00e9", "a Cafe\u0301 at night", True),
        ("cafe", "a caf\u00e9 at night", False),
        ("\u0130stanbul", "i\u0307stanbul", True),
        ("\u092c\u093f\u0932\u094d\u0932\u0940", "\u092c\u093f\u0932\u094d\u0932\u093e", False),
        ("\u092c\u093f\u0932\u094d\u0932\u0940", "\u090f\u0915 \u092c\u093f\u0932\u094d\u0932\u0940", True),
        ("cat", "a \uff23\uff21\uff34", True),
    ],
    ids=["decomposed", "composed", "accent", "dotted i", "vowel sign", "hindi", "full width"],
)
def test_one_letter_is_one_however_it_is_written(phrase: str, text: str, held_out: bool) -> None:
    assert (text in HoldOut([phrase])) is held_out


def test_nothing_is_in_an_empty_hold_out() -> None:
    assert "a cat" not in HoldOut([])
    assert not HoldOut([])
    assert HoldOut(["cat"])


def test_a_phrase_without_a_word_is_refused() -> None:
    with pytest.raises(ValueError, match="phrase 2 holds no word"):
        HoldOut(["cat", "?!"])


WORDS = st.lists(st.sampled_from(["red", "cat", "on", "the", "moon"]), min_size=1, max_size=8)


@given(words=WORDS, phrase=WORDS)
def test_a_phrase_is_in_a_text_where_its_words_stand_in_a_row(words: list[str], phrase: list[str]) -> None:
    expected = f" {' '.join(phrase)} " in f" {' '.join(words)} "
    assert (" ".join(words) in HoldOut([" ".join(phrase)])) is expected
