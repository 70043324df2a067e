import pytest
from pydantic import ValidationError

from core.spec import DistillationSpec


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
