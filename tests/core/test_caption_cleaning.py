"""What captions become, which are dropped, and the count of why."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core import caption_cleaning
from core.caption_cleaning import CaptionReport, SeenTexts, clean_captions, normalise
from core.spec import CaptionLimits


def clean(captions: list[str], **limits: int) -> tuple[list[str], CaptionReport]:
    report = CaptionReport()
    return list(clean_captions(captions, CaptionLimits(**limits), report)), report


def test_composed_and_decomposed_letters_are_one_caption() -> None:
    kept, report = clean(["cafe\u0301", "caf\u00e9", " caf\u00e9\t \n"])
    assert kept == ["caf\u00e9"]
    assert report.as_json() == {"read": 3, "kept": 1, "dropped": {"duplicate": 2}}


def test_every_reason_is_counted() -> None:
    captions = ["ok", "", " \t", "x", "y" * 9, "a\x00b", "lone \ud800 surrogate", "ok", "Ok"]
    kept, report = clean(captions, min_characters=2, max_characters=8)
    assert kept == ["ok", "Ok"]
    assert report.as_json() == {
        "read": 9,
        "kept": 2,
        "dropped": {"duplicate": 1, "empty": 2, "too_long": 1, "too_short": 1, "unprintable": 2},
    }
    assert str(report).startswith("9 read, 2 ")
    assert "1 too long" in str(report)


@given(st.lists(st.text(max_size=30)))
def test_what_is_kept_is_normal_unique_and_in_order(captions: list[str]) -> None:
    kept, report = clean(captions, max_characters=20)
    assert len(set(kept)) == len(kept) == report.kept
    assert [normalise(text) for text in kept] == kept
    assert all(1 <= len(text) <= 20 and text.encode() for text in kept)
    places = [next(place for place, raw in enumerate(captions) if normalise(raw) == text) for text in kept]
    assert places == sorted(places)


def test_texts_are_remembered_past_the_recent_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caption_cleaning, "RECENT_DIGESTS", 10)
    seen = SeenTexts()
    texts = [f"caption {number}" for number in range(35)]
    assert all(seen.add(text) for text in texts)
    assert not any(seen.add(text) for text in texts)
    assert seen.add("another")
