"""What the student is trained on: the teacher's prediction, its features, and the noise itself.

All losses are means over the samples of a batch, sample by sample, so that they do not depend on how a batch
is split.

Axes: B batch, X all others, flattened.
"""

from collections.abc import Sequence
from typing import Literal

import torch

Normalisation = Literal["teacher-energy", "none"]

# Where a caption adds next to nothing to the features, as with the blank one, there is no direction to match
# but rounding error: a direction's energy counts as at least this share of the features' own.
DIRECTION_FLOOR = 1e-4


def output_loss(student_BX: torch.Tensor, teacher_BX: torch.Tensor) -> torch.Tensor:
    """Return the mean squared difference of the predictions."""
    return (student_BX.float() - teacher_BX.float()).square().mean()


def feature_loss(
    students: Sequence[torch.Tensor], teachers: Sequence[torch.Tensor], normalisation: Normalisation
) -> torch.Tensor:
    """Return the sum over the points of the mean squared difference of the features.

    With ``teacher-energy`` each sample's difference at a point is divided by the teacher's own mean square
    there.
    """
    losses = []
    for student, teacher in zip(students, teachers, strict=True):
        energy_B = _energy(teacher)
        difference_B = _energy(student.float() - teacher.float())
        losses.append((difference_B / energy_B if normalisation == "teacher-energy" else difference_B).mean())
    return torch.stack(losses).sum()


def direction_loss(
    students: Sequence[torch.Tensor],
    teachers: Sequence[torch.Tensor],
    blank_students: Sequence[torch.Tensor],
    blank_teachers: Sequence[torch.Tensor],
    normalisation: Normalisation,
) -> torch.Tensor:
    """Return the sum over the points of the mean squared difference of the directions d = h(c) - h(∅).

    With ``teacher-energy`` it is divided by the mean square of the teacher's direction: 0 is a student that
    answers to a caption as its teacher does, 1 at a point is one that does not answer.

    Parameters
    ----------
    students, teachers
        The features under the captions.
    blank_students, blank_teachers
        The features of the same noisy latents under the blank caption.
    normalisation
        As in `feature_loss`.
    """
    losses = []
    for student, teacher, blank_student, blank_teacher in zip(
        students, teachers, blank_students, blank_teachers, strict=True
    ):
        teacher_direction = teacher.float() - blank_teacher.float()
        student_direction = student.float() - blank_student.float()
        difference_B = _energy(student_direction - teacher_direction)
        if normalisation == "teacher-energy":
            floor_B = DIRECTION_FLOOR * _energy(teacher)
            difference_B = difference_B / _energy(teacher_direction).maximum(floor_B)
        losses.append(difference_B.mean())
    return torch.stack(losses).sum()


def task_loss(student_BX: torch.Tensor, truth_BX: torch.Tensor, matches_B: torch.Tensor) -> torch.Tensor:
    """Return the mean squared error of the predictions, taken as nought where the caption was swapped.

    Parameters
    ----------
    student_BX
        The student's predictions.
    truth_BX
        The noise, or the velocity, that the noisy latents were made with.
    matches_B
        Whether a sample's caption belongs to its picture.
    """
    return (_energy(student_BX.float() - truth_BX) * matches_B).mean()


def _energy(values: torch.Tensor) -> torch.Tensor:
    """Return the mean square of each sample."""
    return values.float().flatten(1).square().mean(dim=1)
