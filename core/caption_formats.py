"""What the name of a caption file says about how to read it; free of everything else."""

from pathlib import PurePath
from typing import Literal, get_args

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


def format_of(name: str) -> CaptionFormat | None:
    """Return the format that a file's name speaks of, compressed or not; None where it speaks of none."""
    suffixes = [suffix for suffix in PurePath(name).suffixes if suffix not in COMPRESSIONS]
    return SUFFIXES.get(suffixes[-1]) if suffixes else None


def compression_of(name: str) -> str | None:
    """Return the compression that a file's name speaks of; None where it speaks of none."""
    return COMPRESSIONS.get(PurePath(name).suffix)
