"""One step of a training: what it is made for, what it changes, and how it is made.

A step reads nothing back from the device and does no I/O; its metrics stay on the device.
"""

from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import torch
from diffusers import UNet2DConditionModel
from torch import nn

from core.batches import Batch
from core.checkpoints import (
    checkpoint_guard,
    checkpoint_scores,
    checkpoint_step,
    load_modules,
    load_optimiser,
)
from core.divergence import DivergenceGuard
from core.optimisation import learning_rate, update_average
from core.ranks import adding_up
from core.spec import TrainingSpec
from core.taps import TappedUNet


class Objective(Protocol):
    """What a student is trained for.

    It yields its loss in parts, each with terms to be reported beside it; what is minimised is the sum of all
    ``loss``. Gradients are taken part by part, so that no two parts' graphs are in memory at once.
    """

    @property
    def parts(self) -> int:
        """In how many parts it comes."""

    @property
    def passes(self) -> int:
        """How often the student is called for each part."""

    def __call__(self, student: TappedUNet, batch: Batch) -> Iterator[dict[str, torch.Tensor]]:
        """Yield the parts of the loss of a batch."""


@dataclass
class TrainingState:
    """What a step changes, and what it is held against.

    Attributes
    ----------
    student
        The student's U-Net with its taps and projectors: what is trained and clipped.
    average
        The exponential average of the student's U-Net: what is drawn with, evaluated and exported.
    optimiser
        AdamW over all of `student`.
    step
        Steps finished, in the whole job.
    guide
        An earlier student that this one learns from, where it does not learn from its teacher.
    guard
        Judges the losses, and lowers the learning rate.
    scores
        What the student was found worth on the way, by step. Only the first of several ranks adds to them.
    replica
        What a step calls: the student, which several ranks share the gradients of.
    """

    student: TappedUNet
    average: UNet2DConditionModel
    optimiser: torch.optim.Optimizer
    step: int = 0
    guide: UNet2DConditionModel | None = None
    guard: DivergenceGuard = field(default_factory=DivergenceGuard)
    scores: dict[int, dict[str, float]] = field(default_factory=dict)
    replica: nn.Module = field(init=False)

    def __post_init__(self) -> None:
        self.replica = self.student

    @property
    def modules(self) -> dict[str, nn.Module]:
        """What a checkpoint holds besides the optimiser, by the names of its files."""
        modules = {"model": self.student, "average": self.average}
        return modules if self.guide is None else modules | {"guide": self.guide}

    def load(self, checkpoint: Path) -> None:
        """Go on from a checkpoint."""
        load_modules(checkpoint, self.modules)
        load_optimiser(checkpoint, self.optimiser)
        self.step = checkpoint_step(checkpoint)
        self.guard = checkpoint_guard(checkpoint)
        self.scores = checkpoint_scores(checkpoint)

    def restart(self, weights: Mapping[str, torch.Tensor], step: int) -> None:
        """Begin anew with a student's starting weights, after `step` steps of the job."""
        self.student.load_state_dict(weights)
        self.average.load_state_dict(self.student.unet.state_dict())
        self.optimiser.state.clear()
        self.step = step
        self.scores = {scored: score for scored, score in self.scores.items() if scored <= step}


def train_step(
    state: TrainingState,
    objective: Objective,
    batch: Batch,
    training: TrainingSpec,
    course_step: int,
    rank_count: int = 1,
) -> dict[str, torch.Tensor]:
    """Make one optimiser step and return its metrics, left on the device.

    Parameters
    ----------
    state
        What is changed.
    objective
        What for.
    batch
        The samples, or this rank's share of them.
    training
        How the step is made.
    course_step
        Steps of the course before this one, which the learning rate and the average go by.
    rank_count
        Ranks that make the step together; gradients and metrics are the means of theirs.
    """
    for group in state.optimiser.param_groups:
        group["lr"] = learning_rate(training, course_step) * state.guard.rate_factor
    micro_batches = list(batch.split(training.micro_batch_size or training.batch_size))
    metrics: dict[str, torch.Tensor] = {}
    for place, micro in enumerate(micro_batches):
        share = len(micro) * rank_count / training.batch_size
        parts = objective(state.replica, micro)
        for part in range(objective.parts):
            at_end = place == len(micro_batches) - 1 and part == objective.parts - 1
            with nullcontext() if at_end else adding_up(state.replica):
                terms = next(parts)
                (share * terms["loss"]).backward()
            for name, term in terms.items():
                metrics[name] = metrics.get(name, 0) + share * term.detach()
    metrics["gradient_norm"] = nn.utils.clip_grad_norm_(state.student.parameters(), training.gradient_clip)
    state.optimiser.step()
    state.optimiser.zero_grad()
    state.step += 1
    update_average(state.average, state.student.unet, training.ema_decay, course_step + 1)
    return metrics
