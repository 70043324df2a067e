"""The captions of a job: read, made unique, marked drawn or text-only, kept as an Arrow table on disk.

The teacher draws pictures for the drawn captions alone; the rest are only ever read. A caption's index in
the table is its name everywhere else.
"""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from core.errors import BadCaptionsError
from core.files import replacing
from core.randomness import derived_seed
from core.registry import find_teacher
from core.spec import (
    MAX_CAPTION_CHARACTERS,
    BundledCaptions,
    DistillationSpec,
    DrawnByCount,
    DrawnByText,
    FileCaptions,
    InlineCaptions,
)

TABLE_FILE = "captions.arrow"


@dataclass(frozen=True)
class CaptionSet:
    """Captions on disk, memory-mapped.

    Attributes
    ----------
    table
        Columns ``text`` (string) and ``drawn`` (bool).
    content_hash
        SHA-256 over both columns.
    """

    table: pa.Table
    content_hash: str

    def __len__(self) -> int:
        return self.table.num_rows

    @property
    def drawn(self) -> np.ndarray:
        """Indices of the captions that the teacher draws."""
        return np.flatnonzero(self.table["drawn"].to_numpy())

    @property
    def text_only(self) -> np.ndarray:
        """Indices of the captions that no picture is drawn for."""
        return np.flatnonzero(~self.table["drawn"].to_numpy())

    def texts(self, indices: Iterable[int]) -> list[str]:
        """Return the captions at these indices; the index one past the last is the blank caption."""
        column, count = self.table["text"], len(self)
        return ["" if index == count else column[int(index)].as_py() for index in indices]


def prepare_captions(spec: DistillationSpec, folder: Path, teachers: list[Path]) -> CaptionSet:
    """Read a job's captions, choose the drawn ones, and write the table.

    Parameters
    ----------
    spec
        The job's specification.
    folder
        Where the table goes.
    teachers
        Folders of teachers, where bundled caption sets are.

    Raises
    ------
    BadCaptionsError
        If the source cannot be read or holds no caption.
    """
    unique = dict.fromkeys(read_captions(spec.captions, teachers))
    if not unique:
        raise BadCaptionsError("the caption source holds no caption", "give at least one line of text")
    if isinstance(spec.drawn, DrawnByText):
        unique.update(dict.fromkeys(spec.drawn.texts))
    texts = list(unique)
    drawn = np.isin(np.arange(len(texts)), choose_drawn(texts, spec.drawn, spec.seed))
    table = pa.table({"text": pa.array(texts, pa.string()), "drawn": pa.array(drawn)})
    with replacing(folder / TABLE_FILE) as path, pa.ipc.new_file(str(path), table.schema) as writer:
        writer.write_table(table)
    return open_captions(folder)


def open_captions(folder: Path) -> CaptionSet:
    """Open a table that `prepare_captions` wrote."""
    table = pa.ipc.open_file(pa.memory_map(str(folder / TABLE_FILE))).read_all()
    return CaptionSet(table, hash_captions(table))


def read_captions(
    source: InlineCaptions | FileCaptions | BundledCaptions, teachers: list[Path]
) -> Iterator[str]:
    """Yield the captions of a source in its order, repetitions included."""
    match source:
        case InlineCaptions():
            yield from source.texts
        case FileCaptions():
            yield from _read_lines(Path(source.path))
        case BundledCaptions():
            caption_set = find_teacher(source.name, teachers).caption_set
            if caption_set is None:
                raise BadCaptionsError(
                    f"teacher {source.name} comes with no captions", "give your own captions"
                )
            yield from _read_lines(caption_set)


def choose_drawn(texts: list[str], drawn: DrawnByCount | DrawnByText, seed: int) -> np.ndarray:
    """Return the indices of the captions to draw; a count larger than the set means all of it."""
    if isinstance(drawn, DrawnByText):
        index = {text: position for position, text in enumerate(texts)}
        return np.array([index[text] for text in drawn.texts])
    order = np.random.default_rng(derived_seed(seed, "drawn captions")).permutation(len(texts))
    return order[: drawn.count]


def hash_captions(table: pa.Table) -> str:
    """Return the SHA-256 of a caption table's content, which does not depend on how Arrow lays it out."""
    digest = hashlib.sha256()
    for text, drawn in zip(table["text"].to_pylist(), table["drawn"].to_pylist(), strict=True):
        digest.update(f"{int(drawn)} {text}\n".encode())
    return digest.hexdigest()


def _read_lines(path: Path) -> Iterator[str]:
    try:
        with path.open(encoding="utf-8-sig") as lines:
            for number, line in enumerate(lines, start=1):
                text = line.strip()
                if len(text) > MAX_CAPTION_CHARACTERS:
                    raise BadCaptionsError(
                        f"{path.name}, line {number}: {len(text)} characters",
                        f"a caption has at most {MAX_CAPTION_CHARACTERS} characters",
                    )
                if text:
                    yield text
    except OSError as error:
        raise BadCaptionsError(f"{path.name} cannot be read: {error.strerror}", "check the path") from error
    except UnicodeDecodeError as error:
        raise BadCaptionsError(f"{path.name} is not UTF-8 text", "save the captions as UTF-8") from error
