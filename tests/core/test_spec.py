import pytest
from pydantic import ValidationError

from core.spec import DistillationSpec, DrawnByCount, DrawnByFraction, DrawnByText


@pytest.mark.parametrize(
    "changes",
    [
        {"captions": {"kind": "inline", "texts": ["a\x00b"]}},
        {"captions": {"kind": "file", "path": "a\x00b"}},
        {"drawn": {"texts": ["\x00"]}},
        {"teacher": "\x00"},
    ],
)
def test_text_that_the_database_cannot_hold_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        DistillationSpec.model_validate({"teacher": "emoji-64"} | changes)


def test_a_backslash_is_ordinary_text() -> None:
    captions = {"kind": "inline", "texts": ["a \\u0000 b\nc"]}
    assert DistillationSpec.model_validate({"teacher": "t", "captions": captions})


def test_the_resolved_specification_reads_back_as_itself() -> None:
    spec = DistillationSpec(teacher="emoji-64")
    assert DistillationSpec.model_validate_json(spec.model_dump_json()) == spec


@pytest.mark.parametrize(
    ("drawn", "kind"),
    [
        ({}, DrawnByCount),
        ({"count": 3}, DrawnByCount),
        ({"hold_out": ["cat"]}, DrawnByCount),
        ({"fraction": 0.5, "hold_out": ["cat"]}, DrawnByFraction),
        ({"texts": ["dog"], "hold_out": ["cat"]}, DrawnByText),
    ],
)
def test_the_fields_say_how_the_drawn_captions_are_chosen(drawn: dict[str, object], kind: type) -> None:
    assert isinstance(DistillationSpec.model_validate({"teacher": "t", "drawn": drawn}).drawn, kind)


@pytest.mark.parametrize(
    "changes",
    [
        {"drawn": {"count": 1, "fraction": 0.5}},
        {"drawn": {"fraction": 0}},
        {"drawn": {"hold_out": ["?!"]}},
        {"caption_limits": {"min_characters": 9, "max_characters": 8}},
        {"captions": {"kind": "hub", "dataset": "someone/captions"}},
        {"captions": {"kind": "hub", "dataset": "/etc", "column": "text"}},
        {"captions": {"kind": "hub", "dataset": "a/../../b", "column": "text"}},
        {"evaluation": {"more_steps": [0]}},
        {"export": {"variants": ["int8"]}},
    ],
)
def test_what_cannot_be_meant_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        DistillationSpec.model_validate({"teacher": "emoji-64"} | changes)
