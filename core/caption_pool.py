"""Captions on disk: their UTF-8 bytes end to end in one file, and where each begins in another.

A caption is read, by its place in the file, when it is asked for, so that tens of millions cost a process no
more memory than a few. The files are not mapped: what was read of a mapping stays in resident memory, and to
let go of it after each batch took six times as long as reading. Every process that opens a pool sees the same
captions under the same indices.
"""

import os
import struct
import weakref
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

BYTES_FILE, OFFSETS_FILE = "captions.bin", "offsets.bin"
OFFSET = struct.Struct("<Q")
TWO_OFFSETS = struct.Struct("<QQ")


class CaptionPool:
    """Captions by index.

    Parameters
    ----------
    folder
        Where a `CaptionPoolWriter` wrote them.
    """

    def __init__(self, folder: Path) -> None:
        self._bytes, self._offsets = (
            os.open(folder / name, os.O_RDONLY) for name in (BYTES_FILE, OFFSETS_FILE)
        )
        self._count = os.fstat(self._offsets).st_size // OFFSET.size - 1
        for descriptor in (self._bytes, self._offsets):
            weakref.finalize(self, os.close, descriptor)

    def __len__(self) -> int:
        return self._count

    def texts(self, indices: Iterable[int]) -> list[str]:
        """Return the captions at these indices."""
        return [self._text(int(index)) for index in indices]

    def _text(self, index: int) -> str:
        start, end = TWO_OFFSETS.unpack(os.pread(self._offsets, TWO_OFFSETS.size, OFFSET.size * index))
        return os.pread(self._bytes, end - start, start).decode()


class CaptionPoolWriter:
    """Writes a pool, caption by caption.

    Parameters
    ----------
    folder
        An existing folder.
    """

    def __init__(self, folder: Path) -> None:
        self._bytes = (folder / BYTES_FILE).open("wb")
        self._offsets = (folder / OFFSETS_FILE).open("wb")
        self._offsets.write(OFFSET.pack(0))
        self._end = 0
        self.count = 0

    def append(self, text: str) -> None:
        """Add a caption; its index is the `count` before it."""
        self._end += self._bytes.write(text.encode())
        self._offsets.write(OFFSET.pack(self._end))
        self.count += 1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bytes.close()
        self._offsets.close()
