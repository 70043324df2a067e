"""References to objects: their form, and which lie under a prefix."""

import pytest

from core.object_references import MAX_KEY_BYTES, ObjectReference


def test_a_reference_is_read_and_written_alike() -> None:
    assert str(ObjectReference.parse("s3://models/a/b.txt")) == "s3://models/a/b.txt"
    assert ObjectReference.parse("s3://models/a/").key == "a"


@pytest.mark.parametrize(
    "text",
    [
        *("", "models/a", "http://models/a", "s3:/models/a", "s3://models", "s3://models/", "s3://m/a"),
        *("s3://models/a//b", "s3://models/../a", "s3://models/a/..", "s3://models/./a", "s3://../a"),
        *(
            "s3://models/a\\b",
            "s3://models/a\nb",
            "s3://models/a\x00b",
            "s3://models/\u202eb",
            "S3://models/a",
        ),
        "s3://models/" + "x" * (MAX_KEY_BYTES + 1),
    ],
)
def test_what_is_no_plain_reference_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must"):
        ObjectReference.parse(text)


@pytest.mark.parametrize(
    ("prefix", "text", "is_under"),
    [
        ("s3://models/a", "s3://models/a/b", True),
        ("s3://models/a/", "s3://models/a", True),
        ("s3://models/a", "s3://models/ab", False),
        ("s3://models/a", "s3://models/b/a/c", False),
        ("s3://models/a", "s3://model/a/b", False),
        ("s3://models", "s3://models/a", True),
        ("s3://models/", "s3://models/a", True),
        ("s3://models", "s3://models-of-others/a", False),
    ],
)
def test_a_prefix_is_a_folder(prefix: str, text: str, is_under: bool) -> None:
    assert ObjectReference.parse(text).is_under([ObjectReference.parse_prefix(prefix)]) is is_under
