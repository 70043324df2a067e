"""The one way files and folders come into being: complete, or not at all.

Whatever a later run may rely on is written beside its place, synced, and renamed into it.
"""

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

READ_BYTES = 1 << 20
UNPAIRED = "backslashreplace"
"""How JSON is encoded: half a surrogate pair, which some files hold, is no UTF-8, but in JSON an escape."""
TEMPORARY = ".*.tmp"


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path to write a file or a folder at; it takes `path`'s place when the block ends.

    If the block raises, what it wrote is removed and `path` stays as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_beside(path)
    try:
        yield temporary
        for written in [temporary, *temporary.rglob("*")]:
            _sync(written)
        if path.is_dir():
            shutil.rmtree(path)
        temporary.replace(path)
        _sync(path.parent)
    finally:
        remove(temporary)


def temporary_beside(path: Path) -> Path:
    """Return a name in the same folder that nobody else uses; a leftover of it is known as one."""
    # Containers that share a volume may share process ids, too.
    return path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")


def is_temporary(path: Path) -> bool:
    """Tell whether a name is one of `temporary_beside`."""
    return path.match(TEMPORARY)


def remove_leftovers(folder: Path) -> None:
    """Remove what processes that were killed while writing left behind in a folder of their own."""
    for leftover in list(folder.rglob(TEMPORARY)):
        remove(leftover)


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file in whole."""
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors=UNPAIRED)


def remove(path: Path) -> None:
    """Remove a file or a folder, if it is there."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def sha256(path: Path) -> str:
    """Return the hexadecimal SHA-256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(READ_BYTES):
            digest.update(block)
    return digest.hexdigest()


def describe_files(folder: Path) -> list[dict[str, Any]]:
    """Return path, size and SHA-256 of every file under a folder, as manifests list them."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return [
        {"path": file.relative_to(folder).as_posix(), "size": file.stat().st_size, "sha256": sha256(file)}
        for file in files
    ]


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
