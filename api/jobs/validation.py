"""Checks of a specification that need to know this installation: its teachers, its folders, its database.

The shape of a specification is checked by its own models. What is checked here is refused at the door because
a worker would find it out only minutes later. Nothing here touches the database; of an object
store it reads only what a request names there and the settings allow.
"""

import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from starlette.concurrency import run_in_threadpool

from api.teachers.service import find_registered
from api.tenant_services import TenantServices
from core.caption_formats import format_to_read
from core.spec import (
    BadCaptionsError,
    BadTeacherError,
    DistillationSpec,
    DrawnByCount,
    FileCaptions,
    HubCaptions,
    InlineCaptions,
    InvalidStudentError,
    S3Captions,
    UnknownTeacherError,
    choose_student,
)
from store.errors import InvalidInputError
from store.remote_inputs import find_captions, find_teacher_files, is_remote, read_remote_configs
from store.remote_objects import RemoteObjects
from store.settings import Settings

LISTED_FILES = 20
MOST_RECORDS: Mapping[str, int] = {
    "training.log_every": 100_000,
    "training.checkpoint_every": 10_000,
    "training.sample_every": 10_000,
    "evaluation.score_every": 10_000,
}
"""How often each may come in a job: all of it is kept as long as the job, and shown on its page."""


async def resolve_in_thread(services: TenantServices, spec: DistillationSpec) -> DistillationSpec:
    """Do what `resolve_spec` does, among those who ask the object store only where it has to be asked."""
    asks = is_remote(spec.teacher) or isinstance(spec.captions, S3Captions)
    run = services.object_store_threads.run if asks else run_in_threadpool
    return await run(resolve_spec, spec, services.settings, services.remote_objects)


def resolve_spec(spec: DistillationSpec, settings: Settings, remote: RemoteObjects) -> DistillationSpec:
    """Check a specification against this installation and resolve what depends on it.

    Returns
    -------
    DistillationSpec
        With the caption file's full path, with the revisions of what lies in an object store, and with all
        captions drawn where the request does not say how many and there are fewer than the default.

    Raises
    ------
    InvalidInputError
        It names the field at fault and the allowed values.
    """
    _check_characters(spec.model_dump())
    _check_records(spec)
    if is_remote(spec.teacher):
        spec = _with_remote_teacher(spec, settings, remote)
    else:
        _check_teacher_and_student(spec, settings)
    if isinstance(spec.captions, S3Captions):
        spec = _with_caption_revision(spec, spec.captions, settings, remote)
    if isinstance(spec.captions, FileCaptions):
        path = _find_caption_file(spec.captions, settings.captions_folder)
        spec = spec.model_copy(update={"captions": spec.captions.model_copy(update={"path": str(path)})})
    if isinstance(spec.captions, HubCaptions):
        _check_owner(spec.captions)
    if isinstance(spec.captions, InlineCaptions):
        spec = _with_drawable_count(spec, captions=len(set(spec.captions.texts)))
    return spec


def _check_characters(document: dict[str, Any]) -> None:
    """Refuse the one character that Postgres cannot store."""
    field = next((field for field, text in _strings(document, "") if "\x00" in text), None)
    if field is not None:
        raise InvalidInputError("Text must not contain the NUL character.", field=field)


def _check_records(spec: DistillationSpec) -> None:
    """Refuse a job that would write millions of points, or of files.

    The models allow it, as they also read the specifications of jobs that earlier releases took.
    """
    steps = spec.optimiser_steps
    for field, most in MOST_RECORDS.items():
        group, _, name = field.partition(".")
        every = getattr(getattr(spec, group), name)
        if every and steps // every > most:
            least = -(-steps // most)
            raise InvalidInputError(
                f"Every {every} of {steps:,} steps are {steps // every:,} times, and there may be {most:,}: "
                f"set it to {least} or more.",
                field=field,
                allowed=[f"{least} or more"],
            )


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
        teacher = find_registered(spec.teacher, settings.teachers_dirs)
    except UnknownTeacherError as error:
        raise InvalidInputError(
            "There is no teacher of that id.", field="teacher", allowed=error.known
        ) from error
    _check_student(spec, teacher.unet_config, teacher.prompt_tokens)


def _check_student(spec: DistillationSpec, unet_config: dict[str, Any], prompt_tokens: int) -> None:
    try:
        choose_student(unet_config, spec.student, prompt_tokens)
    except InvalidStudentError as error:
        raise InvalidInputError(error.message, field=error.field, allowed=error.allowed) from error


def _with_remote_teacher(
    spec: DistillationSpec, settings: Settings, remote: RemoteObjects
) -> DistillationSpec:
    """Check a teacher in an object store by its configs, and fix which content of it is meant."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            teacher = find_teacher_files(remote, settings, spec.teacher, Path(folder))
            configs = read_remote_configs(remote, teacher, Path(folder))
        except BadTeacherError as error:
            raise _refusal(error, "teacher") from error
    try:
        _check_student(spec, configs.unet_config, configs.prompt_tokens)
    # Nobody of ours wrote these configs: numbers that fit no U-Net are met where a layer is laid out.
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        message = f"The teacher's unet/config.json describes no U-Net: {error!r}"
        raise InvalidInputError(message, field="teacher") from error
    return spec.model_copy(update={"teacher": teacher.pinned})


def _with_caption_revision(
    spec: DistillationSpec, captions: S3Captions, settings: Settings, remote: RemoteObjects
) -> DistillationSpec:
    try:
        format_to_read(captions.uri, captions.format)
        _, revision = find_captions(remote, settings, captions)
    except BadCaptionsError as error:
        raise _refusal(error, "captions.uri") from error
    return spec.model_copy(update={"captions": captions.model_copy(update={"revision": revision})})


def _check_owner(captions: HubCaptions) -> None:
    try:
        captions.check_owner()
    except BadCaptionsError as error:
        raise _refusal(error, "captions.dataset") from error


def _refusal(error: BadTeacherError | BadCaptionsError, field: str) -> InvalidInputError:
    return InvalidInputError(f"{error.message}; {error.hint}", field=field)


def _find_caption_file(captions: FileCaptions, folder: Path) -> Path:
    """Resolve a path within the captions folder; links and dots that lead out of it are refused."""
    root = folder.resolve()
    try:
        candidate = (root / captions.path).resolve()
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
    try:
        format_to_read(candidate.name, captions.format)
    except BadCaptionsError as error:
        raise _refusal(error, "captions.path") from error
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
