"""What the student is trained on: the teacher's prediction, and its features.

Axes: B batch, and any others behind it.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch

from core.spec import MethodSpec


class LossTerms(NamedTuple):
    """The weighted sum that is minimised, and its two terms before weighting."""

    total: torch.Tensor
    output: torch.Tensor
    feature: torch.Tensor


def output_loss(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Return the mean squared difference of the predictions."""
    return (student.float() - teacher.float()).square().mean()


def feature_loss(
    students: Sequence[torch.Tensor],
    teachers: Sequence[torch.Tensor],
    normalisation: Literal["teacher-energy", "none"],
) -> torch.Tensor:
    """Return the sum over the points of the mean squared difference of the features.

    With ``teacher-energy`` each sample's difference at a point is divided by the teacher's own mean square
    there; sample by sample, so that the loss does not depend on how a batch is split.
    """
    loss = torch.zeros((), device=students[0].device)
    for student, teacher in zip(students, teachers, strict=True):
        teacher_BX = teacher.float().flatten(1)
        difference_B = (student.float().flatten(1) - teacher_BX).square().mean(dim=1)
        if normalisation == "teacher-energy":
            difference_B = difference_B / teacher_BX.square().mean(dim=1)
        loss = loss + difference_B.mean()
    return loss


def distillation_loss(
    student: tuple[torch.Tensor, Sequence[torch.Tensor]],
    teacher: tuple[torch.Tensor, Sequence[torch.Tensor]],
    method: MethodSpec,
) -> LossTerms:
    """Return the loss of a student's prediction and features against its teacher's."""
    output = output_loss(student[0], teacher[0])
    feature = feature_loss(student[1], teacher[1], method.features.normalisation)
    return LossTerms(method.output_weight * output + method.features.weight * feature, output, feature)
