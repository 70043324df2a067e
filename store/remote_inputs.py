"""Teachers and captions that jobs name as ``s3://…``: which are allowed, and what exactly is meant.

The API resolves a reference when a job is submitted, and the worker once more before it fetches anything. The
revision that the first found is kept in the specification, so that a job never goes on with another content.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from core.object_references import SCHEME, ObjectReference
from core.spec import BadCaptionsError, BadTeacherError, S3Captions
from core.teacher_files import INDEX, choose_files, is_config
from core.teacher_folder import TeacherConfigs, read_configs, read_json
from store.errors import RemoteObjectError
from store.remote_objects import RemoteObject, RemoteObjects, revision_of
from store.settings import Settings

MAX_TEACHER_FILES = 1_000
MAX_CONFIG_BYTES = 2**20
_REVISION = re.compile(r"@([0-9a-f]{32})$")
_CHANGED = "submit the job anew if the present content is meant"


@dataclass(frozen=True)
class RemoteTeacher:
    """A pipeline folder in an object store.

    Attributes
    ----------
    reference
        Where it is.
    files
        What is to be fetched of it, by path within the folder.
    revision
        Changes with any of these files.
    """

    reference: ObjectReference
    files: dict[str, RemoteObject]
    revision: str

    @property
    def pinned(self) -> str:
        """The reference with its revision, as a specification keeps it."""
        return f"{self.reference}@{self.revision}"

    @property
    def name(self) -> str:
        """The folder's own name."""
        return self.reference.key.rpartition("/")[2]


def is_remote(teacher: str) -> bool:
    """Tell whether a specification's teacher lies in an object store."""
    return teacher.startswith(SCHEME)


def find_teacher_files(
    remote: RemoteObjects, settings: Settings, teacher: str, scratch: Path
) -> RemoteTeacher:
    """Find out which files make up a teacher.

    Parameters
    ----------
    remote, settings
        Where it is, and what is allowed.
    teacher
        ``s3://bucket/prefix``, with ``@revision`` or without.
    scratch
        An empty folder; the teacher's index is left in it.

    Raises
    ------
    BadTeacherError
        If it is not allowed, not there, too large, has changed, or has no safetensors weights.
    """
    pinned = _REVISION.search(teacher)
    reference = _allowed_teacher(_REVISION.sub("", teacher), settings)
    try:
        found = remote.list_under(reference, MAX_TEACHER_FILES)
        objects = {entry.reference.key.removeprefix(f"{reference.key}/"): entry for entry in found}
        if INDEX not in objects:
            raise BadTeacherError(
                f"{reference} holds no {INDEX}",
                "name a pipeline folder as diffusers' save_pretrained writes it",
            )
        (scratch / INDEX).write_bytes(remote.read(objects[INDEX], max_bytes=MAX_CONFIG_BYTES))
    except RemoteObjectError as error:
        raise BadTeacherError(error.detail, "check the reference and who may read the bucket") from error
    files = {name: objects[name] for name in choose_files(objects, read_json(scratch / INDEX))}
    size = sum(entry.size for entry in files.values())
    if size > settings.max_teacher_bytes:
        raise BadTeacherError(
            f"{reference} has {size:,} bytes; {settings.max_teacher_bytes:,} are allowed",
            "the service's operator sets MAX_TEACHER_BYTES",
        )
    revision = revision_of(files[name] for name in sorted(files))
    if pinned is not None and pinned[1] != revision:
        raise BadTeacherError(f"{reference} has changed since revision {pinned[1]}", _CHANGED)
    return RemoteTeacher(reference, files, revision)


def read_remote_configs(remote: RemoteObjects, teacher: RemoteTeacher, folder: Path) -> TeacherConfigs:
    """Check a teacher by its small JSON files, which are fetched into a folder.

    Raises
    ------
    BadTeacherError
        If it cannot be distilled.
    """
    try:
        for name, entry in teacher.files.items():
            if is_config(name):
                (folder / name).parent.mkdir(exist_ok=True)
                (folder / name).write_bytes(remote.read(entry, max_bytes=MAX_CONFIG_BYTES))
    except RemoteObjectError as error:
        raise BadTeacherError(error.detail, "check the teacher's configs") from error
    return read_configs(folder)


def find_captions(
    remote: RemoteObjects, settings: Settings, captions: S3Captions
) -> tuple[RemoteObject, str]:
    """Find the object that captions lie in, and its revision.

    Raises
    ------
    BadCaptionsError
        If it is not allowed, not there, too large, or has changed.
    """
    reference = ObjectReference.parse(captions.uri)
    prefixes = settings.s3_caption_prefixes
    if not reference.is_under(_parsed(prefixes)):
        raise BadCaptionsError(_not_allowed(reference, "captions"), _hint(prefixes, "S3_CAPTION_PREFIXES"))
    try:
        found = remote.find(reference)
    except RemoteObjectError as error:
        raise BadCaptionsError(error.detail, "check the reference and who may read the bucket") from error
    if found.size > settings.max_caption_file_bytes:
        raise BadCaptionsError(
            f"{reference} has {found.size:,} bytes; {settings.max_caption_file_bytes:,} are allowed",
            "the service's operator sets MAX_CAPTION_FILE_BYTES",
        )
    revision = revision_of([found])
    if captions.revision is not None and captions.revision != revision:
        raise BadCaptionsError(f"{reference} has changed since revision {captions.revision}", _CHANGED)
    return found, revision


def _allowed_teacher(text: str, settings: Settings) -> ObjectReference:
    prefixes = settings.s3_teacher_prefixes
    try:
        reference = ObjectReference.parse(text)
    except ValueError as error:
        raise BadTeacherError(f"{text!r} {error}", _hint(prefixes, "S3_TEACHER_PREFIXES")) from error
    if not reference.is_under(_parsed(prefixes)):
        raise BadTeacherError(_not_allowed(reference, "teachers"), _hint(prefixes, "S3_TEACHER_PREFIXES"))
    return reference


def _parsed(prefixes: Sequence[str]) -> list[ObjectReference]:
    return [ObjectReference.parse_prefix(prefix) for prefix in prefixes]


def _not_allowed(reference: ObjectReference, kind: str) -> str:
    return f"{reference} lies under no prefix that this service reads {kind} from"


def _hint(prefixes: Sequence[str], setting: str) -> str:
    return f"allowed: {', '.join(prefixes) or 'none'}; the service's operator sets {setting}"
