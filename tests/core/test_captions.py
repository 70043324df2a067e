"""Caption sets: unique, ordered, hashed by content, with the drawn ones chosen by seed or named."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from core.caption_cleaning import normalise
from core.captions import CaptionSet, open_captions, prepare_captions, read_captions, report_captions
from core.drawn import all_but
from core.errors import BadCaptionsError
from core.events import EventWriter
from core.spec import BundledCaptions, DistillationSpec
from core.stopping import Stopped
from tests.core.conftest import StopAfter

TEXTS = st.lists(st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), max_size=20))
ANIMALS = {
    "kind": "inline",
    "texts": [f"{size} {name}" for size in ("big", "red") for name in ("cat", "dog", "bus")],
}


def specify(**fields: object) -> DistillationSpec:
    return DistillationSpec.model_validate({"teacher": "t", **fields})


def prepare(folder: Path, **fields: object) -> CaptionSet:
    return prepare_captions(specify(**fields), folder, [])


def numbered(count: int) -> dict[str, object]:
    return {"kind": "inline", "texts": [f"caption {number}" for number in range(count)]}


@settings(deadline=None, max_examples=30)
@given(texts=TEXTS)
def test_a_file_gives_its_lines_once_each_in_order(
    texts: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("captions")
    (folder / "in.txt").write_text("\n".join(texts), encoding="utf-8", newline="\n")
    expected = list(dict.fromkeys(text for text in map(normalise, texts) if text))
    source = {"kind": "file", "path": str(folder / "in.txt")}
    if not expected:
        with pytest.raises(BadCaptionsError, match="no caption"):
            prepare(folder, captions=source)
        return
    captions = prepare(folder, captions=source)
    assert captions.texts(range(len(captions))) == expected


def test_a_count_is_drawn_by_seed(tmp_path: Path) -> None:
    one, same, other = (
        prepare(tmp_path / str(place), captions=numbered(50), drawn={"count": 10}, seed=seed)
        for place, seed in enumerate((1, 1, 2))
    )
    assert one.splits == {"drawn": 10, "text_only": 40, "held_out": 0}
    assert np.array_equal(one.drawn, same.drawn)
    assert not np.array_equal(one.drawn, other.drawn)
    assert one.content_hash == same.content_hash != other.content_hash


def test_a_smaller_count_is_part_of_a_larger_one(tmp_path: Path) -> None:
    few, many = (
        prepare(tmp_path / str(count), captions=numbered(99), drawn={"count": count, "hold_out": ["7"]})
        for count in (5, 20)
    )
    assert set(few.drawn) < set(many.drawn)


def test_a_count_beyond_the_set_draws_all_of_it(tmp_path: Path) -> None:
    captions = prepare(tmp_path, captions={"kind": "inline", "texts": ["a", "b"]}, drawn={"count": 9})
    assert captions.drawn.tolist() == [0, 1]
    assert captions.splits["text_only"] == 0


@pytest.mark.parametrize(("fraction", "count"), [(0.25, 10), (0.001, 1), (1, 40)])
def test_a_fraction_is_of_the_captions_that_may_be_drawn(tmp_path: Path, fraction: float, count: int) -> None:
    held_out = [str(number) for number in range(10, 20)]
    captions = prepare(tmp_path, captions=numbered(50), drawn={"fraction": fraction, "hold_out": held_out})
    assert captions.splits == {"drawn": count, "text_only": 40 - count, "held_out": 10}


def test_no_caption_with_a_held_out_word_is_drawn(tmp_path: Path) -> None:
    captions = prepare(tmp_path, captions=ANIMALS, drawn={"count": 9, "hold_out": ["Cat", "red bus"]})
    assert captions.texts(captions.drawn) == ["big dog", "big bus", "red dog"]
    assert captions.texts(captions.held_out) == ["big cat", "red cat", "red bus"]


def test_holding_everything_out_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BadCaptionsError, match="every caption"):
        prepare(tmp_path, captions=ANIMALS, drawn={"fraction": 1, "hold_out": ["big", "red"]})


def test_a_named_caption_cannot_be_held_out() -> None:
    with pytest.raises(ValidationError, match="hold_out holds out text 2"):
        specify(captions=ANIMALS, drawn={"texts": ["big dog", "big cat"], "hold_out": ["cat"]})


def test_drawn_texts_join_the_set(tmp_path: Path) -> None:
    captions = prepare(
        tmp_path,
        captions={"kind": "inline", "texts": ["a", "b", "a cat"]},
        drawn={"texts": ["new", "b"], "hold_out": ["cat"]},
    )
    assert captions.texts(captions.drawn) == ["b", "new"]
    assert captions.texts(captions.held_out) == ["a cat"]
    assert captions.splits["text_only"] == 1


@given(excluded=st.sets(st.integers(0, 60)), count=st.integers(0, 30))
def test_ranks_among_all_but_some_numbers(excluded: set[int], count: int) -> None:
    expected = [number for number in range(200) if number not in excluded][:count]
    assert all_but(np.array(sorted(excluded), np.int64), np.arange(count)).tolist() == expected


@pytest.mark.parametrize("split", ["drawn", "text_only", "held_out"])
def test_captions_of_a_split_are_chosen_equally_often(tmp_path: Path, split: str) -> None:
    captions = prepare(tmp_path, captions=numbered(60), drawn={"count": 20, "hold_out": ["4", "5", "59"]})
    members = {
        "drawn": set(captions.drawn),
        "held_out": {4, 5, 59},
        "text_only": set(range(60)) - set(captions.drawn) - {4, 5, 59},
    }[split]
    size = captions.splits[split]
    assert len(members) == size
    few = captions.choose(split, 2, seed=0)
    assert len(set(few) & members) == 2
    assert not np.array_equal(few, captions.choose(split, 2, seed=1))
    chosen, times = np.unique(captions.choose(split, 2 * size + 1, seed=0), return_counts=True)
    assert set(chosen) == members
    assert sorted(times) == [2] * (size - 1) + [3]


def test_the_index_past_the_last_is_the_blank_caption(tmp_path: Path) -> None:
    captions = prepare(tmp_path, captions={"kind": "inline", "texts": ["a", "b"]})
    assert captions.texts([2, 1, 2, 0]) == ["", "b", "", "a"]


def test_the_hash_is_of_the_captions_and_of_which_are_drawn(tmp_path: Path) -> None:
    captions = prepare(tmp_path, captions={"kind": "inline", "texts": ["a", "b"]}, drawn={"texts": ["b"]})
    assert captions.content_hash == hashlib.sha256(b"0 a\n1 b\n").hexdigest()


def test_a_set_that_is_there_is_used_until_another_is_asked_for(tmp_path: Path) -> None:
    source = {"kind": "file", "path": str(tmp_path / "in.txt")}
    (tmp_path / "in.txt").write_text("one\ntwo\n")
    first = prepare(tmp_path, captions=source)
    (tmp_path / "in.txt").write_text("three\n")
    again = prepare(tmp_path, captions=source)
    assert again.content_hash == first.content_hash == open_captions(tmp_path).content_hash
    assert again.report == first.report
    other = prepare(tmp_path, captions=source, seed=1)
    assert other.texts([0]) == ["three"]


@pytest.mark.parametrize("checks", [0, 2, 5], ids=["at once", "while reading", "while hashing"])
def test_a_stop_ends_the_reading_and_leaves_nothing(tmp_path: Path, checks: int) -> None:
    """Nine thousand captions are looked at in three parts, first to be kept and then to be hashed."""
    spec = specify(captions=numbered(9_000))
    with pytest.raises(Stopped):
        prepare_captions(spec, tmp_path, [], stop=StopAfter(checks))
    assert list(tmp_path.iterdir()) == []
    assert len(prepare_captions(spec, tmp_path, [], stop=StopAfter(6))) == 9_000


def test_the_bundled_set_is_beside_its_teacher(teachers_dir: Path) -> None:
    assert next(read_captions(BundledCaptions(), [teachers_dir])).strip() == "small cat"


def test_the_user_is_told_what_was_dropped_and_what_is_not_as_asked(
    tmp_path: Path, events: EventWriter
) -> None:
    path = tmp_path / "in.csv"
    path.write_text("caption,id\n" + "\n".join(["one,1", "one,2", '"",3', f"{'x' * 40},4", "two,5"]))
    spec = specify(
        captions={"kind": "file", "path": str(path)},
        caption_limits={"max_characters": 30},
        drawn={"count": 5, "hold_out": ["three"]},
    )
    report_captions(prepare_captions(spec, tmp_path, []), spec, events)
    written = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    assert written[0] | {"at": None} == {
        "at": None,
        "type": "captions",
        "count": 2,
        "drawn": 2,
        "text_only": 0,
        "held_out": 0,
        "report": {"read": 5, "kept": 2, "dropped": {"duplicate": 1, "empty": 1, "too_long": 1}},
    }
    assert [event["message"] for event in written if event["type"] == "warning"] == [
        "of 5 captions some were dropped: 1 too long",
        "there are only 2 captions to draw: the teacher draws all of them",
        "no caption has a word of drawn.hold_out: nothing is held out",
    ]
