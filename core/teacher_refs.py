"""From the name that a specification gives its teacher to a pipeline folder on this machine.

A teacher is named by a registered id, by the path of a pipeline folder, or as ``owner/name@revision`` of the
Hugging Face Hub. One in an object store, ``s3://bucket/prefix``, is fetched by the worker before core starts.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import hf_hub_download, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

from core.errors import BadTeacherError
from core.exhaustion import exhaustion
from core.families import check_pipeline
from core.object_references import SCHEME
from core.registry import find_teacher
from core.teacher_files import INDEX, LICENCE_FILES, PART_FILES, ROOT_FILES
from core.teacher_folder import TeacherInfo, read_json, read_teacher

VARIANTS = ("*.fp16.safetensors", "*.non_ema.safetensors")


def resolve_teacher(reference: str, directories: Sequence[Path], fetched: Path | None = None) -> TeacherInfo:
    """Find the teacher that a specification names, and fetch it if it is on the Hub.

    Parameters
    ----------
    reference
        ``owner/name@revision`` of the Hugging Face Hub, the path of a pipeline folder, or a registered id.
    directories
        Folders of registered teachers.
    fetched
        The folder that the reference was fetched into, where somebody has done that already.

    Raises
    ------
    BadTeacherError
        If it cannot be found or fetched, or is of a kind that cannot be distilled.
    StorageFullError
        If what is fetched of it does not fit on the disk.
    OSError
        If it cannot be read for a reason that may pass.
    """
    if fetched is not None:
        return read_teacher(fetched).model_copy(update={"id": reference})
    if reference.startswith(SCHEME):
        raise BadTeacherError(
            f"{reference} is in an object store, which is not read from here",
            "name the folder that it was fetched into",
        )
    if (Path(reference) / INDEX).is_file():
        return read_teacher(Path(reference))
    if "@" in reference:
        repository, revision = reference.rsplit("@", maxsplit=1)
        return read_teacher(_download(repository, revision)).model_copy(update={"id": repository})
    return find_teacher(reference, directories)


def hub_patterns(index: Iterable[str]) -> list[str]:
    """Return which files of a Hub repository to fetch: those of the pipeline's parts, licence and card.

    Repositories also hold single-file checkpoints and other tools' formats, many times the pipeline's size.
    """
    parts = [name for name in index if not name.startswith("_")]
    licences = map(_in_any_case, LICENCE_FILES)
    return [*ROOT_FILES, *licences, *(f"{part}/{pattern}" for part in parts for pattern in PART_FILES)]


def _in_any_case(pattern: str) -> str:
    return "".join(f"[{each.upper()}{each}]" if each.isalpha() else each for each in pattern)


def _download(repository: str, revision: str) -> Path:
    """Fetch a pipeline, after its index has shown that it is one that can be distilled."""
    index = read_json(Path(_fetch(hf_hub_download, repository, revision, filename=INDEX)))
    check_pipeline(index, repository)
    patterns = hub_patterns(index)
    folder = _fetch(
        snapshot_download, repository, revision, allow_patterns=patterns, ignore_patterns=list(VARIANTS)
    )
    return Path(folder)


def _fetch(download: Any, repository: str, revision: str, **what: Any) -> str:
    try:
        return str(download(repository, revision=revision, **what))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise exhaustion(error) or BadTeacherError(
            f"{repository} at revision {revision} cannot be fetched from the Hub: {error}",
            "check the name, the revision, the network, and that its licence has been accepted",
        ) from error
