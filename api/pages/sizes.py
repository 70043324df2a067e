"""How large teachers and their students are, kept while the pages ask again and again.

Counting a student's layers takes milliseconds, and a list shows many; listing the teachers reads their files.
"""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from core.spec import (
    InvalidStudentError,
    Student,
    TeacherInfo,
    choose_student,
    fitting_presets,
    list_teachers,
    unet_layout,
)

TEACHERS_KEPT_SECONDS = 5
_STUDENT: TypeAdapter[Any] = TypeAdapter(Student)


@dataclass(frozen=True)
class Size:
    """Parameters of a U-Net, and milliards of multiply-accumulates of one pass of one picture."""

    parameters: int
    gmacs: float


def known_teachers(directories: Sequence[Path]) -> dict[str, TeacherInfo]:
    """Return the teachers of this installation by id, as they were a few seconds ago at most."""
    return _teachers(tuple(directories), int(time.monotonic() // TEACHERS_KEPT_SECONDS))


@lru_cache(maxsize=2)
def _teachers(directories: tuple[Path, ...], _period: int) -> dict[str, TeacherInfo]:
    return {teacher.id: teacher for teacher in list_teachers(directories)}


def student_size(teacher: TeacherInfo | None, student: Any) -> Size | None:
    """Return the size of a student as a specification names it; None where the teacher is gone."""
    if teacher is None:
        return None
    return _student_size(json.dumps(teacher.unet_config), json.dumps(student), teacher.prompt_tokens)


def preset_sizes(teacher: TeacherInfo) -> dict[str, Size]:
    """Return the sizes of the presets that fit a teacher."""
    sizes = {preset: student_size(teacher, preset) for preset in fitting_presets(teacher.unet_config)}
    return {preset: size for preset, size in sizes.items() if size is not None}


def teacher_size(teacher: TeacherInfo) -> Size:
    """Return the size of a teacher."""
    return _layout_size(teacher.unet_config, teacher.prompt_tokens)


@lru_cache(maxsize=1_024)
def _student_size(unet_config: str, student: str, prompt_tokens: int) -> Size | None:
    teacher = json.loads(unet_config)
    try:
        config = choose_student(teacher, _STUDENT.validate_json(student), prompt_tokens).config
    except InvalidStudentError:  # the teacher of that id is another one than when the job was accepted
        return None
    return _layout_size(config, prompt_tokens)


def _layout_size(config: Mapping[str, Any], prompt_tokens: int) -> Size:
    layout = unet_layout(config, prompt_tokens=prompt_tokens)
    return Size(layout.parameters, layout.layer_multiply_accumulates / 1e9)
