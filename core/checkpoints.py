"""Checkpoints: everything a resumed run needs to equal an uninterrupted one, as safetensors and JSON.

A checkpoint is a folder that appears complete or not at all, with a manifest of its files' hashes. One that
does not match its manifest is passed over for the one before it. Randomness is not in it: it follows from the
seed and the samples seen. Nor are captions and teacher, of which the manifest says which they were: a later
attempt reads both anew, and must find the same.
"""

import errno
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from core.divergence import DivergenceGuard
from core.errors import BadCaptionsError, BadTeacherError
from core.files import describe_files, remove, replacing, sha256, write_json

FORMAT = 1
KEPT = 2
MANIFEST = "manifest.json"
NAME = re.compile(r"step-\d{8}")
OF_DAMAGE = frozenset((errno.ENOENT, errno.ENOTDIR, errno.EIO))
"""Errors of a file that will not be read another time either: it is missing, or its disk is broken there."""


@dataclass(frozen=True)
class Origin:
    """What a student is made from.

    Attributes
    ----------
    captions
        Content hash of the caption set.
    teacher
        Revision of the teacher.
    """

    captions: str
    teacher: str


def checkpoint_name(step: int) -> str:
    """Return the folder name of the checkpoint after `step` steps."""
    return f"step-{step:08d}"


def save_checkpoint(
    folder: Path,
    step: int,
    modules: Mapping[str, torch.nn.Module],
    optimiser: torch.optim.Optimizer,
    guard: DivergenceGuard,
    scores: Mapping[int, Mapping[str, float]],
    origin: Origin,
) -> Path:
    """Write a checkpoint and remove all but it and those just before it.

    Parameters
    ----------
    folder
        The job's folder of checkpoints.
    step
        Steps finished.
    modules
        What has weights, by the name of its file.
    optimiser
        What has moments.
    guard
        What the losses are judged by.
    scores
        What the student was found worth on the way, by step.
    origin
        What it is made from.

    Returns
    -------
    Path
        The checkpoint.
    """
    checkpoint = folder / checkpoint_name(step)
    with replacing(checkpoint) as temporary:
        temporary.mkdir()
        for name, module in modules.items():
            save_file(_contiguous(module.state_dict()), temporary / f"{name}.safetensors")
        save_file(_flatten(optimiser.state_dict()["state"]), temporary / "optimiser.safetensors")
        manifest = {
            "format": FORMAT,
            "step": step,
            "guard": guard.to_json(),
            "scores": scores,
            "origin": asdict(origin),
            "files": describe_files(temporary),
        }
        write_json(temporary / MANIFEST, manifest)
    # Later ones were passed over as damaged, or this run would have gone on from them.
    complete = complete_checkpoints(folder)
    place = complete.index(checkpoint) + 1
    for needless in complete[place:] + complete[:place][:-KEPT]:
        remove(needless)
    return checkpoint


def newest_checkpoint(folder: Path) -> Path | None:
    """Return the newest checkpoint whose files match their manifest, or None.

    Raises
    ------
    OSError
        If a file cannot be read for a reason that may pass: a run that went on from an earlier checkpoint
        would remove a sound one.
    """
    return next(filter(_is_intact, reversed(complete_checkpoints(folder))), None)


def complete_checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoints of a folder, oldest first."""
    return sorted(path for path in folder.glob("step-*") if NAME.fullmatch(path.name))


def checkpoint_step(checkpoint: Path) -> int:
    """Return the steps that were finished when a checkpoint was written."""
    return int(json.loads((checkpoint / MANIFEST).read_text())["step"])


def checkpoint_guard(checkpoint: Path) -> DivergenceGuard:
    """Return the guard of a checkpoint; one that an earlier release wrote begins to judge anew."""
    manifest = json.loads((checkpoint / MANIFEST).read_text())
    return DivergenceGuard.from_json(manifest["guard"]) if "guard" in manifest else DivergenceGuard()


def checkpoint_scores(checkpoint: Path) -> dict[int, dict[str, float]]:
    """Return the scores of a checkpoint by step; none of one that an earlier release wrote."""
    manifest = json.loads((checkpoint / MANIFEST).read_text())
    return {int(step): score for step, score in manifest.get("scores", {}).items()}


def check_origin(folder: Path, origin: Origin) -> None:
    """Refuse to go on from checkpoints that were made from something else than is there now.

    One that an earlier release wrote, or whose manifest cannot be read, says nothing of its origin.

    Raises
    ------
    BadCaptionsError, BadTeacherError
        If the captions, or the teacher, have changed since the newest of them was written.
    """
    for checkpoint in complete_checkpoints(folder)[-1:]:
        try:
            former = Origin(**json.loads((checkpoint / MANIFEST).read_text())["origin"])
        except (OSError, ValueError, KeyError, TypeError):
            continue
        since = f"since {checkpoint.name} of this job was written"
        again = "bring back what was there then, or retry the job from scratch"
        if former.captions != origin.captions:
            raise BadCaptionsError(
                f"the captions, or which of them are drawn, have changed {since}: "
                f"their hash was {former.captions[:12]} and is {origin.captions[:12]}",
                again,
            )
        if former.teacher != origin.teacher:
            raise BadTeacherError(
                f"the teacher has changed {since}: "
                f"its revision was {former.teacher[:12]} and is {origin.teacher[:12]}",
                again,
            )


def load_modules(checkpoint: Path, modules: Mapping[str, torch.nn.Module]) -> None:
    """Load the weights of some of a checkpoint's modules."""
    for name, module in modules.items():
        module.load_state_dict(load_file(checkpoint / f"{name}.safetensors"))


def load_optimiser(checkpoint: Path, optimiser: torch.optim.Optimizer) -> None:
    """Load the optimiser's moments."""
    moments = _unflatten(load_file(checkpoint / "optimiser.safetensors"))
    optimiser.load_state_dict({**optimiser.state_dict(), "state": moments})


def _is_intact(checkpoint: Path) -> bool:
    try:
        files = json.loads((checkpoint / MANIFEST).read_text())["files"]
        return all(sha256(checkpoint / file["path"]) == file["sha256"] for file in files)
    except OSError as error:
        if error.errno not in OF_DAMAGE:
            raise
        return False
    except (ValueError, KeyError):
        return False


def _contiguous(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor.contiguous() for name, tensor in tensors.items()}


def _flatten(moments: dict[int, dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    return {f"{index}.{name}": tensor for index, named in moments.items() for name, tensor in named.items()}


def _unflatten(tensors: dict[str, torch.Tensor]) -> dict[int, dict[str, torch.Tensor]]:
    moments: dict[int, dict[str, torch.Tensor]] = {}
    for key, tensor in tensors.items():
        index, name = key.split(".", maxsplit=1)
        moments.setdefault(int(index), {})[name] = tensor
    return moments
