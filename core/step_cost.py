"""What a sample costs in passes through the U-Nets, for every option of the method; free of torch.

A pass is one forward pass of one sample through a whole U-Net; taps, projectors and losses are next to
nothing beside it. An estimate takes from here what it multiplies with the models' own costs.
"""

from dataclasses import dataclass

from core.few_step_spec import FewStepSpec
from core.method_spec import MethodSpec


@dataclass(frozen=True)
class SampleCost:
    """Passes of one sample in one optimiser step.

    Attributes
    ----------
    teacher
        Forward passes of the teacher.
    guide
        Forward passes of an earlier student that is not trained.
    student
        Passes of the student that is trained: each one forward and one backward.
    student_at_once
        Passes of the student whose activations are in memory at the same time. Where these are not all, the
        loss comes in parts, whose gradients are summed.
    """

    teacher: int
    guide: int
    student: int
    student_at_once: int


@dataclass(frozen=True)
class CourseCost:
    """A stretch of the job.

    Attributes
    ----------
    steps
        Optimiser steps.
    sample
        What each of their samples costs.
    earlier_students
        Students of before that are in memory beside the one that is trained and its average.
    """

    steps: int
    sample: SampleCost
    earlier_students: int


def training_sample_cost(method: MethodSpec) -> SampleCost:
    """Return the cost of a sample of the training.

    Every state that a sample visits takes one pass of both models, and one more of both under the blank
    caption where directions are matched. The walk from state to state is free: it takes the prediction that
    was matched.
    """
    per_state = 2 if method.features.direction_weight else 1
    passes = method.noise_matching_steps * per_state
    return SampleCost(teacher=passes, guide=0, student=passes, student_at_once=per_state)


FOLDING_COST = SampleCost(teacher=2, guide=0, student=1, student_at_once=1)
HALVING_COST = SampleCost(teacher=0, guide=2, student=1, student_at_once=1)


def transfer_costs(few_step: FewStepSpec | None) -> list[CourseCost]:
    """Return the cost of each round of a few-step transfer, in order; none without a transfer.

    In memory stay the student that the training left, what the round before left, and the guide.
    """
    if few_step is None:
        return []
    return [
        CourseCost(
            few_step.training_steps,
            FOLDING_COST if steps is None else HALVING_COST,
            earlier_students=1 + (number > 0) + (steps is not None),
        )
        for number, steps in enumerate(few_step.rounds)
    ]
