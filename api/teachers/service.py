"""The teacher that a request names."""

from collections.abc import Sequence
from pathlib import Path

from core.spec import TeacherInfo, find_teacher
from store.errors import UnavailableError


def find_registered(teacher_id: str, directories: Sequence[Path]) -> TeacherInfo:
    """Return the teacher of that id.

    Raises
    ------
    UnknownTeacherError
        If there is none.
    UnavailableError
        If it is not found, and a folder of teachers cannot be read just now.
    """
    try:
        return find_teacher(teacher_id, directories)
    except OSError as error:
        raise UnavailableError(f"A folder of teachers cannot be read: {error}") from error
