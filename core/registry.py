"""The teachers on this machine: folders in the diffusers layout, found by id.

A teacher is a sub-folder that holds a ``model_index.json``; a ``teacher.json`` beside it may name it. Only
JSON files and the headers of safetensors files are read, so that the API process, which has no torch, can
list teachers and check students against them.
"""

import hashlib
import json
import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from core.errors import BadTeacherError, UnknownTeacherError

logger = logging.getLogger(__name__)

FAMILIES: dict[str, Literal["sd1"]] = {"StableDiffusionPipeline": "sd1"}
SAMPLED_BLOCKS = 16
SAMPLED_BLOCK_BYTES = 65_536


class TeacherInfo(BaseModel):
    """What is known of a teacher without loading it.

    Attributes
    ----------
    id
        The name by which a job asks for it.
    path
        The pipeline's folder.
    family
        How prompts are encoded and what the U-Net takes.
    unet_config
        The U-Net's config, from which students are derived.
    parameters
        Parameters of the U-Net, counted from the headers of its weight files.
    licence
        The licence's short name, where the folder says so.
    revision
        A hash that changes with the teacher's configs and weights.
    title, description
        For people, where the folder has them.
    caption_set
        The file of captions beside the teacher, where it has one.
    """

    model_config = ConfigDict(frozen=True)

    id: str
    path: Path
    family: Literal["sd1"]
    unet_config: dict[str, Any]
    parameters: int
    licence: str | None = None
    revision: str
    title: str | None = None
    description: str | None = None
    caption_set: Path | None = None


def list_teachers(directories: Sequence[Path]) -> list[TeacherInfo]:
    """Return the teachers in these folders, sorted by id; of two with one id the first folder's counts."""
    teachers: dict[str, TeacherInfo] = {}
    for directory in directories:
        for index in sorted(directory.glob("*/model_index.json")):
            try:
                teacher = read_teacher(index.parent)
            except BadTeacherError as error:  # one broken folder must not hide the others
                logger.warning("%s is passed over: %s", index.parent, error)
                continue
            teachers.setdefault(teacher.id, teacher)
    return [teachers[teacher_id] for teacher_id in sorted(teachers)]


def find_teacher(teacher_id: str, directories: Sequence[Path]) -> TeacherInfo:
    """Return the teacher of that id.

    Raises
    ------
    UnknownTeacherError
        If none of the folders has it; it lists those they have.
    """
    teachers = {teacher.id: teacher for teacher in list_teachers(directories)}
    if teacher_id not in teachers:
        raise UnknownTeacherError(teacher_id, list(teachers))
    return teachers[teacher_id]


def read_teacher(path: Path) -> TeacherInfo:
    """Read one pipeline folder.

    Raises
    ------
    BadTeacherError
        If it is no pipeline of a known family, or has no safetensors weights.
    """
    pipeline = _read_json(path / "model_index.json").get("_class_name")
    if pipeline not in FAMILIES:
        raise BadTeacherError(
            f"{path.name} is a {pipeline}, which cannot be distilled",
            f"known pipelines: {', '.join(FAMILIES)}",
        )
    about = _read_json(path / "teacher.json") if (path / "teacher.json").is_file() else {}
    unet_weights = weight_files(path / "unet")
    return TeacherInfo(
        id=about.get("id", path.name),
        path=path,
        family=FAMILIES[pipeline],
        unet_config=_read_json(path / "unet" / "config.json"),
        parameters=sum(map(count_parameters, unet_weights)),
        licence=about.get("licence"),
        revision=_revision(path),
        title=about.get("name"),
        description=about.get("description"),
        caption_set=path / about["caption_set"] if "caption_set" in about else None,
    )


def weight_files(component: Path) -> list[Path]:
    """Return the safetensors files of one component of a pipeline, shards in order.

    Where full precision and a variant such as ``fp16`` lie side by side, the variant is left out.
    """
    files = sorted(component.glob("*.safetensors"))
    plain = [file for file in files if file.name.count(".") == 1]
    if not plain:
        raise BadTeacherError(
            f"{component.parent.name}/{component.name} has no safetensors weights",
            "convert the weights to safetensors; pickled weights are never read",
        )
    return plain


def safetensors_header(path: Path) -> dict[str, Any]:
    """Return the JSON header of a safetensors file: dtype, shape and place of every tensor."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        try:
            header: dict[str, Any] = json.loads(file.read(length))
        except (ValueError, MemoryError) as error:
            raise BadTeacherError(f"{path.name} is not a safetensors file") from error
    header.pop("__metadata__", None)
    return header


def count_parameters(path: Path) -> int:
    """Return the number of values in a safetensors file."""
    return sum(math.prod(tensor["shape"]) for tensor in safetensors_header(path).values())


def _revision(path: Path) -> str:
    """Hash the JSON files whole, and of each weight file its size and blocks spread evenly over it.

    Reading all of a large teacher at each listing would take seconds; other weights of the same shapes differ
    in every block.
    """
    digest = hashlib.sha256()
    for file in sorted(path.glob("*/*.json")):
        digest.update(file.relative_to(path).as_posix().encode() + file.read_bytes())
    for file in sorted(path.glob("*/*.safetensors")):
        size = file.stat().st_size
        digest.update(f"{file.relative_to(path).as_posix()} {size}".encode())
        with file.open("rb") as weights:
            for block in range(SAMPLED_BLOCKS):
                weights.seek(block * max(size - SAMPLED_BLOCK_BYTES, 0) // (SAMPLED_BLOCKS - 1))
                digest.update(weights.read(SAMPLED_BLOCK_BYTES))
    return digest.hexdigest()


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadTeacherError(
            f"{path.parent.name}/{path.name} cannot be read: {error}",
            "a teacher is a folder as diffusers' save_pretrained writes it",
        ) from error
    if not isinstance(content, dict):
        raise BadTeacherError(f"{path.parent.name}/{path.name} holds no JSON object")
    return content
