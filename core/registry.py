"""The teachers on this machine, found by id.

A teacher is a folder, in one of the teachers' folders, that holds a ``model_index.json``; a ``teacher.json``
beside it may name it.
"""

import contextlib
import errno
import logging
import os
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path

from core.errors import BadTeacherError, UnknownTeacherError
from core.teacher_files import INDEX
from core.teacher_folder import TeacherInfo, may_pass, read_teacher

logger = logging.getLogger(__name__)

Stamp = tuple[tuple[str, int, int], ...]


def list_teachers(directories: Sequence[Path]) -> list[TeacherInfo]:
    """Return the teachers in these folders, sorted by id; of two with one id the first folder's counts."""
    teachers, _ = _read_all(directories)
    return [teachers[teacher_id] for teacher_id in sorted(teachers)]


def find_teacher(teacher_id: str, directories: Sequence[Path]) -> TeacherInfo:
    """Return the teacher of that id.

    Raises
    ------
    UnknownTeacherError
        If none of the folders has it; it lists those they have.
    OSError
        If it is not found, and a folder could not be read for a reason that may pass: that may be it.
    """
    teachers, passing = _read_all(directories)
    if teacher_id in teachers:
        return teachers[teacher_id]
    if passing:
        raise passing[0]
    raise UnknownTeacherError(teacher_id, sorted(teachers))


def _read_all(directories: Sequence[Path]) -> tuple[dict[str, TeacherInfo], list[OSError]]:
    """Return the teachers by id, and the passing errors that may have kept others from being among them."""
    teachers: dict[str, TeacherInfo] = {}
    passing: list[OSError] = []
    for directory in directories:
        with _passing_over(directory, passing):
            if not _is_there(directory):
                continue
            for path in sorted(directory / entry.name for entry in _entries(directory)):
                with _passing_over(path, passing):
                    if _is_there(path / INDEX):
                        teacher = _read_unchanged(path, _stamp(path))
                        teachers.setdefault(teacher.id, teacher)
    return teachers, passing


@contextlib.contextmanager
def _passing_over(folder: Path, passing: list[OSError]) -> Iterator[None]:
    """Take an error of one folder, which must not hide the others, and keep it if it may pass."""
    try:
        yield
    except (BadTeacherError, OSError) as error:
        logger.warning("%s is passed over: %s", folder, error)
        # What is not there any more was there a moment ago: somebody is at work on the folder just now.
        if isinstance(error, OSError) and (error.errno == errno.ENOENT or may_pass(error)):
            passing.append(error)


def _is_there(path: Path) -> bool:
    """Tell whether there is such a path; in later Pythons `Path.exists` takes any error for a no."""
    try:
        path.stat()
    except OSError as error:
        if may_pass(error):
            raise
        return False
    return True


@lru_cache(maxsize=64)
def _read_unchanged(path: Path, stamp: Stamp) -> TeacherInfo:
    """Read a folder once for as long as its files have this stamp: every submission asks for its teacher."""
    return read_teacher(path)


def _stamp(path: Path) -> Stamp:
    """Name, size and time of each file that reading the folder looks at."""
    beside = _entries(path)
    entries = [*beside, *(each for folder in beside if folder.is_dir() for each in _entries(folder))]
    files = [(entry.path, entry.stat()) for entry in entries if entry.is_file()]
    return tuple(sorted((name, stat.st_size, stat.st_mtime_ns) for name, stat in files))


def _entries(folder: os.PathLike[str]) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return list(entries)
