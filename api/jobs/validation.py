"""Checks of a specification that need to know this installation: its teachers, its folders, its database.

The shape of a specification is checked by its own models. What is checked here is refused at the door because
a worker would find it out only minutes later. Nothing here touches the database.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from core.spec import (
    DistillationSpec,
    DrawnByCount,
    FileCaptions,
    InlineCaptions,
    InvalidStudentError,
    UnknownTeacherError,
    choose_student,
    find_teacher,
)
from store.errors import InvalidInputError
from store.settings import Settings

LISTED_FILES = 20


def resolve_spec(spec: DistillationSpec, settings: Settings) -> DistillationSpec:
    """Check a specification against this installation and resolve what depends on it.

    Returns
    -------
    DistillationSpec
        With the caption file's full path, and with all captions drawn where the request does not say how many
        and there are fewer than the default.

    Raises
    ------
    InvalidInputError
        It names the field at fault and the allowed values.
    """
    _check_characters(spec.model_dump())
    _check_teacher_and_student(spec, settings)
    if isinstance(spec.captions, FileCaptions):
        path = _find_caption_file(spec.captions.path, settings.captions_folder)
        spec = spec.model_copy(update={"captions": spec.captions.model_copy(update={"path": str(path)})})
    if isinstance(spec.captions, InlineCaptions):
        spec = _with_drawable_count(spec, captions=len(set(spec.captions.texts)))
    return spec


def _check_characters(document: dict[str, Any]) -> None:
    """Refuse the one character that Postgres cannot store."""
    field = next((field for field, text in _strings(document, "") if "\x00" in text), None)
    if field is not None:
        raise InvalidInputError("Text must not contain the NUL character.", field=field)


def _strings(value: Any, field: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield field, value
    elif isinstance(value, dict):
        for name, nested in value.items():
            yield from _strings(nested, f"{field}.{name}" if field else name)
    elif isinstance(value, list):
        for index, nested in enumerate(value):
            yield from _strings(nested, f"{field}.{index}")


def _check_teacher_and_student(spec: DistillationSpec, settings: Settings) -> None:
    try:
        teacher = find_teacher(spec.teacher, settings.teachers_dirs)
    except UnknownTeacherError as error:
        raise InvalidInputError(
            "There is no teacher of that id.", field="teacher", allowed=error.known
        ) from error
    try:
        choose_student(teacher.unet_config, spec.student, teacher.prompt_tokens)
    except InvalidStudentError as error:
        raise InvalidInputError(error.message, field=error.field, allowed=error.allowed) from error


def _find_caption_file(path: str, folder: Path) -> Path:
    """Resolve a path within the captions folder; links and dots that lead out of it are refused."""
    root = folder.resolve()
    try:
        candidate = (root / path).resolve()
        found = candidate.is_relative_to(root) and candidate.is_file()
    except (OSError, RuntimeError):  # a name too long for the file system, or links that lead in a circle
        found = False
    if not found:
        names = sorted(entry.name for entry in root.iterdir()) if root.is_dir() else []
        raise InvalidInputError(
            "There is no such file in the server's captions folder.",
            field="captions.path",
            allowed=names[:LISTED_FILES],
        )
    return candidate


def _with_drawable_count(spec: DistillationSpec, *, captions: int) -> DistillationSpec:
    if not isinstance(spec.drawn, DrawnByCount) or spec.drawn.count <= captions:
        return spec
    if "drawn" not in spec.model_fields_set:
        return spec.model_copy(update={"drawn": DrawnByCount(count=captions)})
    raise InvalidInputError(
        f"{spec.drawn.count} captions cannot be drawn from a set of {captions} different ones.",
        field="drawn.count",
        allowed=[f"1 to {captions}"],
    )
