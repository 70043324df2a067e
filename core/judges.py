"""What pictures are judged by: any function from pictures and their captions to numbers for each picture.

All that is measured later follows from these numbers, so that they can be kept and the pictures forgotten.

Axes: B pictures, D feature, K classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from core.evaluation_clip import (
    FOLDER,
    FOLDER_VARIABLE,
    EvaluationClip,
    find_evaluation_clip,
    load_evaluation_clip,
)
from core.inception import PUBLISHED_SIDE, Inception, find_inception, load_inception
from core.references import REFERENCE_FILES, References, load_references
from core.spec import EvaluationSpec
from core.teacher import Teacher
from core.teacher_folder import TeacherInfo

Judgements = dict[str, np.ndarray]

NOTHING_TO_JUDGE_BY = (
    f"the teacher comes with no {FOLDER}, and {FOLDER_VARIABLE} names none: pictures are not judged"
)


class Judge(Protocol):
    """Judges pictures."""

    def look(self, pictures_BCHW: torch.Tensor, captions: Sequence[str]) -> Judgements:
        """Judge uint8 pictures.

        Returns
        -------
        dict
            Arrays with a row for each picture: always ``features`` BD; where the judge can tell them,
            ``clip`` BD, its CLIP embedding; ``clip_similarity`` B, the cosine to the caption's;
            ``probabilities`` BK; ``reference_rank`` B, as in `References.ranks`.
        """


@dataclass(frozen=True)
class ClipJudge:
    """Judges by a CLIP, and by reference pictures where there are some."""

    clip: EvaluationClip
    references: References | None

    def look(self, pictures_BCHW: torch.Tensor, captions: Sequence[str]) -> Judgements:
        """Judge uint8 pictures; the features are the CLIP embeddings."""
        pictures_BD = self.clip.embed_pictures(pictures_BCHW).cpu()
        captions_BD = self.clip.embed_texts(captions).cpu()
        judged = {
            "features": pictures_BD,
            "clip": pictures_BD,
            "clip_similarity": (pictures_BD * captions_BD).sum(dim=1),
        }
        if self.references:
            judged["probabilities"] = self.references.probabilities(pictures_BD, self.clip.scale)
            judged["reference_rank"] = self.references.ranks(pictures_BD, captions)
        return {name: values.numpy() for name, values in judged.items()}


@dataclass(frozen=True)
class InceptionJudge:
    """Judges by Inception as in the published protocol, and by a CLIP what only a CLIP can tell."""

    inception: Inception
    clip_judge: ClipJudge | None

    def look(self, pictures_BCHW: torch.Tensor, captions: Sequence[str]) -> Judgements:
        """Judge uint8 pictures; features and probabilities are Inception's."""
        features_BD, probability_BK = self.inception(pictures_BCHW)
        told_by_clip = self.clip_judge.look(pictures_BCHW, captions) if self.clip_judge else {}
        return told_by_clip | {"features": features_BD.numpy(), "probabilities": probability_BK.numpy()}


def check_judge(teacher: TeacherInfo, evaluation: EvaluationSpec) -> list[str]:
    """Find out at a job's start what would otherwise come up hours later: that its judge cannot be loaded.

    Returns
    -------
    list of str
        What the user should be told.

    Raises
    ------
    CoreError
        If what there is to judge by is not whole.
    """
    clip = find_evaluation_clip(teacher)
    if clip:
        load_references(teacher.path)
    if evaluation.features == "inception":
        find_inception()
    elif not clip:
        return [NOTHING_TO_JUDGE_BY]
    return []


def load_judge(teacher: Teacher, evaluation: EvaluationSpec) -> Judge | None:
    """Load what a specification asks for; None if that is a CLIP and there is none."""
    clip = load_evaluation_clip(teacher)
    clip_judge = ClipJudge(clip, load_references(teacher.info.path)) if clip else None
    if evaluation.features == "inception":
        return InceptionJudge(load_inception(teacher.device), clip_judge)
    return clip_judge


def judge_identity(teacher: Teacher, evaluation: EvaluationSpec) -> list[list[str | int]]:
    """Return what changes, on one machine, with the files that the judge of `load_judge` is loaded from."""
    clip = find_evaluation_clip(teacher.info)
    files = sorted(clip.rglob("*")) if clip else []
    files += [teacher.info.path / name for name in REFERENCE_FILES]
    seen_at: list[list[str | int]] = []
    if evaluation.features == "inception":
        files.append(find_inception())
        seen_at.append(["largest side", PUBLISHED_SIDE])
    return seen_at + [_written(file) for file in files if file.is_file()]


def _written(file: Path) -> list[str | int]:
    stat = file.stat()
    return [str(file), stat.st_size, stat.st_mtime_ns]
