"""What the name of a caption file says about how to read it; free of torch.

The letter case of an ending does not matter.
"""

from pathlib import PurePath
from typing import Literal, get_args

from core.errors import BadCaptionsError

CaptionFormat = Literal["text", "csv", "tsv", "jsonl", "parquet"]

COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}
SUFFIXES: dict[str, CaptionFormat] = {
    ".txt": "text",
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
}
CAPTION_FORMATS: tuple[CaptionFormat, ...] = get_args(CaptionFormat)


SUPPORTED = f"supported: {', '.join(SUFFIXES)}; {' or '.join(COMPRESSIONS)} may follow all but .parquet"


def format_of(name: str) -> CaptionFormat | None:
    """Return the format that a file's name speaks of, compressed or not; None where it speaks of none."""
    return SUFFIXES.get(_ending(name))


def format_to_read(name: str, stated: CaptionFormat | None = None) -> CaptionFormat:
    """Return how to read a file: as somebody says, or as its name does; text where it has no ending.

    Parameters
    ----------
    name
        The file's name or path.
    stated
        The format that a specification gives the file, which goes before its name.

    Raises
    ------
    BadCaptionsError
        If nobody says, and the name has an ending of no format: such a file read as text is a set of captions
        that no one wrote.
    """
    found = stated or format_of(name)
    if found is None and _ending(name):
        raise BadCaptionsError(
            f"{PurePath(name).name} ends in {_ending(name)}, which is no format of captions",
            f"{SUPPORTED}; or say what it is with captions.format ({', '.join(CAPTION_FORMATS)})",
        )
    return found or "text"


def compression_of(name: str) -> str | None:
    """Return the compression that a file's name speaks of; None where it speaks of none."""
    return COMPRESSIONS.get(PurePath(name).suffix.lower())


def _ending(name: str) -> str:
    """Return the ending of a name in lower case, without those of compressions; empty where it has none."""
    suffixes = [suffix.lower() for suffix in PurePath(name).suffixes]
    return next((suffix for suffix in reversed(suffixes) if suffix not in COMPRESSIONS), "")
