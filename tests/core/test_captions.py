"""Caption sets: unique, ordered, hashed by content, with the drawn ones chosen by seed or named."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.captions import CaptionSet, open_captions, prepare_captions, read_captions
from core.errors import BadCaptionsError
from core.spec import MAX_CAPTION_CHARACTERS, BundledCaptions, DistillationSpec, FileCaptions

TEXTS = st.lists(st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Zl", "Zp"]), max_size=20))


def prepare(folder: Path, **fields: object) -> CaptionSet:
    return prepare_captions(DistillationSpec.model_validate({"teacher": "t", **fields}), folder, [])


@settings(deadline=None, max_examples=30)
@given(texts=TEXTS)
def test_a_file_gives_its_lines_once_each_in_order(
    texts: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("captions")
    (folder / "in.txt").write_text("\n".join(texts), encoding="utf-8", newline="\n")
    expected = list(dict.fromkeys(text for text in map(str.strip, texts) if text))
    source = {"kind": "file", "path": str(folder / "in.txt")}
    if not expected:
        with pytest.raises(BadCaptionsError, match="no caption"):
            prepare(folder, captions=source)
        return
    captions = prepare(folder, captions=source)
    assert captions.texts(range(len(captions))) == expected


def test_a_count_is_drawn_by_seed(tmp_path: Path) -> None:
    inline = {"kind": "inline", "texts": [f"caption {number}" for number in range(50)]}
    one, same, other = (
        prepare(tmp_path / str(place), captions=inline, drawn={"count": 10}, seed=seed)
        for place, seed in enumerate((1, 1, 2))
    )
    assert len(one.drawn) == 10
    assert len(one.text_only) == 40
    assert np.array_equal(one.drawn, same.drawn)
    assert not np.array_equal(one.drawn, other.drawn)
    assert one.content_hash == same.content_hash != other.content_hash


def test_a_count_beyond_the_set_draws_all_of_it(tmp_path: Path) -> None:
    captions = prepare(tmp_path, captions={"kind": "inline", "texts": ["a", "b"]}, drawn={"count": 9})
    assert captions.drawn.tolist() == [0, 1]
    assert captions.text_only.size == 0


def test_drawn_texts_join_the_set(tmp_path: Path) -> None:
    captions = prepare(
        tmp_path, captions={"kind": "inline", "texts": ["a", "b"]}, drawn={"texts": ["new", "b"]}
    )
    assert captions.texts(captions.drawn) == ["b", "new"]
    assert captions.texts(captions.text_only) == ["a"]


def test_the_index_past_the_last_is_the_blank_caption(tmp_path: Path) -> None:
    captions = prepare(tmp_path, captions={"kind": "inline", "texts": ["a", "b"]})
    assert captions.texts([1, 2]) == ["b", ""]


def test_a_reopened_set_is_the_same(tmp_path: Path) -> None:
    captions = prepare(tmp_path, captions={"kind": "inline", "texts": ["a", "b", "a"]}, drawn={"count": 1})
    again = open_captions(tmp_path)
    assert again.content_hash == captions.content_hash
    assert again.table.equals(captions.table)


def test_the_bundled_set_is_beside_its_teacher(teachers_dir: Path) -> None:
    assert next(read_captions(BundledCaptions(), [teachers_dir])) == "small cat"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"ok\n\xff\xfe\n", "not UTF-8"),
        (b"ok\n" + b"x" * (MAX_CAPTION_CHARACTERS + 1), "line 2"),
        (None, "cannot be read"),
    ],
)
def test_an_unreadable_file_says_why(tmp_path: Path, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / "in.txt").write_bytes(content)
    with pytest.raises(BadCaptionsError, match=message):
        list(read_captions(FileCaptions(path=str(tmp_path / "in.txt")), []))
