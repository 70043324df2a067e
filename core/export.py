"""The student as a diffusers pipeline folder that plain ``from_pretrained`` loads.

It holds the averaged weights, everything else of the teacher's pipeline, the teacher's licence, a model card,
and a manifest that says what it was made from. It appears complete or not at all, and holds nothing but data.
"""

import json
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel

from core.captions import CaptionSet
from core.files import describe_files, replacing, write_json
from core.model_card import write_model_card
from core.registry import safetensors_header, weight_files
from core.spec import DistillationSpec
from core.teacher import Teacher

FORMAT = 1
FOLDER = "student"
GRID_FILE = "teacher-vs-student.png"
REPLACED_COMPONENT = "unet"
VERSIONED = ("torch", "diffusers", "transformers", "safetensors")
DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
COPIED_SUFFIXES = {".json", ".txt", ".safetensors"}


def as_exported(student: UNet2DConditionModel, teacher: Teacher) -> UNet2DConditionModel:
    """Round a student's weights to the precision that its teacher's are kept in, which it will be saved in.

    What is evaluated and drawn after this is what is shipped.
    """
    return student.to(stored_dtype(teacher)).to(torch.float32)


def stored_dtype(teacher: Teacher) -> torch.dtype:
    """Return the precision in which a teacher's U-Net lies on disk."""
    header = safetensors_header(weight_files(teacher.info.path / "unet")[0])
    return DTYPES[next(iter(header.values()))["dtype"]]


def export_student(
    student: UNet2DConditionModel,
    teacher: Teacher,
    captions: CaptionSet,
    spec: DistillationSpec,
    values: dict[str, Any],
    grid: Path,
    workdir: Path,
) -> Path:
    """Write the folder.

    Parameters
    ----------
    student
        The averaged weights.
    teacher
        Whose pipeline it is put into.
    captions, spec, values
        What it was made from, how, and what was measured.
    grid
        Picture of teacher and student side by side.
    workdir
        The job's folder.
    """
    folder = workdir / FOLDER
    with replacing(folder) as temporary:
        temporary.mkdir()
        _copy_pipeline(teacher.info.path, temporary)
        student.to(stored_dtype(teacher)).save_pretrained(
            temporary / REPLACED_COMPONENT, safe_serialization=True
        )
        student.to(torch.float32)
        shutil.copyfile(grid, temporary / GRID_FILE)
        licences = _copy_licences(teacher.info.path, temporary)
        write_model_card(temporary / "README.md", teacher.info, spec, values, GRID_FILE, licences)
        manifest = {
            "format": FORMAT,
            "teacher": {"id": teacher.info.id, "revision": teacher.info.revision},
            "captions": {
                "sha256": captions.content_hash,
                "count": len(captions),
                "drawn": len(captions.drawn),
            },
            "spec": spec.model_dump(mode="json"),
            "seed": spec.seed,
            "versions": {name: version(name) for name in VERSIONED},
            "files": describe_files(temporary),
        }
        write_json(temporary / "manifest.json", manifest)
    return folder


def _copy_pipeline(teacher: Path, folder: Path) -> None:
    """Copy the pipeline's index and every component but the U-Net; nothing that is not data."""
    index = json.loads((teacher / "model_index.json").read_text())
    shutil.copyfile(teacher / "model_index.json", folder / "model_index.json")
    for component in index:
        if component == REPLACED_COMPONENT or not (teacher / component).is_dir():
            continue
        (folder / component).mkdir()
        weights = (
            set(weight_files(teacher / component))
            if any((teacher / component).glob("*.safetensors"))
            else set()
        )
        for file in (teacher / component).iterdir():
            if file in weights or file.suffix in COPIED_SUFFIXES - {".safetensors"}:
                shutil.copyfile(file, folder / component / file.name)


def _copy_licences(teacher: Path, folder: Path) -> list[str]:
    licences = [file for pattern in ("LICENSE*", "LICENCE*") for file in sorted(teacher.glob(pattern))]
    for file in licences:
        shutil.copyfile(file, folder / file.name)
    return [file.name for file in licences]
