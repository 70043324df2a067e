"""The names of objects in an object store, ``s3://bucket/key``: their form, never their content."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

SCHEME = "s3://"
MAX_KEY_BYTES = 1_024
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_DOTS = {"", ".", ".."}


@dataclass(frozen=True)
class ObjectReference:
    """An object, or all objects under a prefix.

    Attributes
    ----------
    bucket
        Name of the bucket.
    key
        The object's key, or the prefix, without a slash at its end.
    """

    bucket: str
    key: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a reference.

        A key that a file system could take for a way out of its folder is refused: some object stores keep
        their objects in one, and what is fetched becomes a file here.

        Raises
        ------
        ValueError
            It says what is wrong with the form.
        """
        bucket, _, key = text.removeprefix(SCHEME).partition("/")
        key = key.removesuffix("/")
        if not text.startswith(SCHEME) or not _BUCKET.fullmatch(bucket):
            raise ValueError(f"must be of the form {SCHEME}bucket/key")
        if not is_plain_key(key):
            raise ValueError(
                "must have a key without empty parts, dots for parts, backslashes or control characters"
            )
        return cls(bucket, key)

    @classmethod
    def parse_prefix(cls, text: str) -> Self:
        """Read what is to be a prefix of other references: a bucket alone will do."""
        bucket = text.removeprefix(SCHEME).removesuffix("/")
        if text.startswith(SCHEME) and _BUCKET.fullmatch(bucket):
            return cls(bucket, "")
        return cls.parse(text)

    def is_under(self, prefixes: Sequence["ObjectReference"]) -> bool:
        """Tell whether this lies in one of these folders; ``a/bc`` does not lie in ``a/b``."""
        return any(
            self.bucket == prefix.bucket and (not prefix.key or f"{self.key}/".startswith(f"{prefix.key}/"))
            for prefix in prefixes
        )

    def __str__(self) -> str:
        return f"{SCHEME}{self.bucket}/{self.key}"


def is_plain_key(key: str) -> bool:
    """Tell whether a key, as the path of a file below a folder, stays below it."""
    return (
        not _DOTS.intersection(key.split("/"))
        and "\\" not in key
        and key.isprintable()
        and len(key.encode()) <= MAX_KEY_BYTES
    )


def check_object_reference(text: str) -> str:
    """Return a reference as it is, once its form has been found good."""
    ObjectReference.parse(text)
    return text
