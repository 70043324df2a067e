"""The student as a diffusers pipeline folder that plain ``from_pretrained`` loads.

It holds the averaged weights in several precisions and under several names, everything else of the teacher's
pipeline, the teacher's licence, a model card, and a manifest that says what it was made from. It appears
complete or not at all, and holds nothing but data.
"""

import json
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import save_file

from core.captions import CaptionSet
from core.few_step_scheduler import write_few_step_scheduler
from core.files import describe_files, replacing, write_json
from core.model_card import NO_MID_BLOCK, write_model_card
from core.original_names import original_names
from core.shipped_index import ABSENT, REPLACED_COMPONENT, shipped_index, shipped_weights
from core.spec import DistillationSpec, ExportSpec
from core.teacher import Teacher
from core.teacher_files import INDEX, is_licence
from core.verify import FORMAT, MANIFEST_FILE
from core.weight_files import unet_dtype

FOLDER = "student"
GRID_FILE = "teacher-vs-student.png"
VERSIONED = ("torch", "diffusers", "transformers", "safetensors")
DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
VARIANTS = {"fp16": torch.float16, "bf16": torch.bfloat16}
VARIANT_FILE = "diffusion_pytorch_model.{variant}.safetensors"
SINGLE_FILE = "unet.fp16.safetensors"
COPIED_SUFFIXES = {".json", ".txt", ".safetensors"}


def as_exported(student: UNet2DConditionModel, teacher: Teacher) -> UNet2DConditionModel:
    """Round a student's weights to the precision that its teacher's are kept in, which it will be saved in.

    What is evaluated and drawn after this is what is shipped.
    """
    return student.to(stored_dtype(teacher)).to(torch.float32)


def stored_dtype(teacher: Teacher) -> torch.dtype:
    """Return the precision in which a teacher's U-Net lies on disk."""
    return DTYPES[unet_dtype(teacher.info.path)]


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
        if spec.few_step:
            write_few_step_scheduler(temporary, spec.few_step.steps)
        _save_unet(student, stored_dtype(teacher), spec.export, temporary)
        shutil.copyfile(grid, temporary / GRID_FILE)
        licences = _copy_licences(teacher.info.path, temporary)
        has_mid_block = student.mid_block is not None
        write_model_card(
            temporary / "README.md", teacher.info, spec, values, GRID_FILE, licences, has_mid_block
        )
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
        write_json(temporary / MANIFEST_FILE, manifest)
    return folder


def export_warnings(folder: Path) -> list[str]:
    """Return what the user of an exported student should be told."""
    warnings = []
    if not _licences(folder):
        warnings.append(
            "the teacher's folder holds no licence text; find out its terms before passing the student on"
        )
    config = json.loads((folder / REPLACED_COMPONENT / "config.json").read_text(encoding="utf-8"))
    if config["mid_block_type"] is None:
        warnings.append(NO_MID_BLOCK)
    return warnings


def _save_unet(student: UNet2DConditionModel, stored: torch.dtype, export: ExportSpec, folder: Path) -> None:
    """Save the U-Net in its teacher's precision, in those asked for beside it, and under the original names.

    A variant of the teacher's own precision is a file of its own, too: only where there is one of its name is
    a pipeline loaded by that name.
    """
    component = folder / REPLACED_COMPONENT
    student.to(stored).save_pretrained(component, safe_serialization=True)
    student.to(torch.float32)  # loses nothing, for `as_exported` has rounded it already
    metadata = {"format": "pt"}  # transformers and diffusers refuse files that do not say so
    for variant in export.variants:
        rounded = {name: weight.to(VARIANTS[variant]) for name, weight in student.state_dict().items()}
        save_file(rounded, component / VARIANT_FILE.format(variant=variant), metadata)
    if export.single_file:
        state = student.state_dict()
        rounded = {original: state[name].half() for name, original in original_names(state).items()}
        save_file(rounded, folder / SINGLE_FILE, metadata)


def _copy_pipeline(teacher: Path, folder: Path) -> None:
    """Copy every component but the U-Net, with an index of those that are there; nothing that is not data."""
    index = shipped_index(teacher)
    write_json(folder / INDEX, index)
    weights = set(shipped_weights(teacher))
    for component, entry in index.items():
        is_copied = isinstance(entry, list) and entry != ABSENT and component != REPLACED_COMPONENT
        if not is_copied or not (teacher / component).is_dir():
            continue
        (folder / component).mkdir()
        for file in (teacher / component).iterdir():
            if file in weights or file.suffix in COPIED_SUFFIXES - {".safetensors"}:
                shutil.copyfile(file, folder / component / file.name)


def _copy_licences(teacher: Path, folder: Path) -> list[str]:
    licences = _licences(teacher)
    for file in licences:
        shutil.copyfile(file, folder / file.name)
    return [file.name for file in licences]


def _licences(folder: Path) -> list[Path]:
    return [file for file in sorted(folder.iterdir()) if file.is_file() and is_licence(file.name)]
