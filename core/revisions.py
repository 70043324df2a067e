"""What tells one teacher's content from another's: a hash of all that is loaded of its folder.

What a teacher drew is kept under its revision and used for later jobs, so a change of a single weight has to
change it. Weights are read whole for that, once in a process for as long as their size and time stay; torch
is not needed.
"""

import hashlib
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from threading import Lock

from core.files import sha256
from core.teacher_files import EVALUATION_PARTS, INDEX, is_part_file

SAMPLED_BLOCKS = 16
SAMPLED_BLOCK_BYTES = 65_536

_hashing = Lock()


def revision_of(teacher: Path, parts: Iterable[str]) -> str:
    """Return the hash of a teacher's index, and of configs, tokenizers and weights of its parts.

    Parameters
    ----------
    teacher
        Its folder.
    parts
        The parts that its family loads. The noise schedule, and a CLIP beside them that judges its pictures,
        count too.
    """
    files = [
        file
        for part in {*parts, "scheduler", *EVALUATION_PARTS}
        for file in (teacher / part).glob("*")
        if is_part_file(file.name) and file.is_file()
    ]
    lines = sorted(
        f"{file.relative_to(teacher).as_posix()} {_hash(file)}\n" for file in [teacher / INDEX, *files]
    )
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def sampled_revision(teacher: Path) -> str:
    """Return the revision that earlier releases gave a teacher, which results of their jobs name.

    It hashes the parts' JSON files whole, and of each weight file its size and a few blocks, and so misses
    most changes of some of the weights.
    """
    digest = hashlib.sha256()
    for file in sorted(teacher.glob("*/*.json")):
        digest.update(file.relative_to(teacher).as_posix().encode() + file.read_bytes())
    for file in sorted(teacher.glob("*/*.safetensors")):
        size = file.stat().st_size
        digest.update(f"{file.relative_to(teacher).as_posix()} {size}".encode())
        with file.open("rb") as weights:
            for block in range(SAMPLED_BLOCKS):
                weights.seek(block * max(size - SAMPLED_BLOCK_BYTES, 0) // (SAMPLED_BLOCKS - 1))
                digest.update(weights.read(SAMPLED_BLOCK_BYTES))
    return digest.hexdigest()


def _hash(file: Path) -> str:
    stat = file.stat()
    with _hashing:  # requests that ask at the same time wait for one reading instead of each reading all
        return _hash_unchanged(str(file), stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=4_096)
def _hash_unchanged(file: str, size: int, mtime_ns: int) -> str:
    return sha256(Path(file))
