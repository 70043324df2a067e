"""Few-step transfer: a distilled student learns to draw without guidance, then in fewer and fewer steps.

Guidance is folded in first: the student alone learns to predict what its teacher predicts with guidance. Then
come rounds of progressive distillation: what the round before left behind becomes the guide, and the student
learns to make one sampler step of what takes its guide two. All of it starts from the teacher's own pictures
and from captions chosen by random conditioning, so no real picture is needed here either.

Axes: B batch, C channels, H W height and width, K steps of a sampler.

References
----------
Meng et al.: "On Distillation of Guided Diffusion Models", CVPR 2023 (guidance).
Salimans, Ho: "Progressive Distillation for Fast Sampling of Diffusion Models", ICLR 2022 (the rounds).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import ClassVar

import torch
from diffusers import UNet2DConditionModel

from core.batches import Batch, BatchSource
from core.checkpoints import checkpoint_scores, checkpoint_step, newest_checkpoint
from core.conditions import Conditions
from core.events import EventWriter, Progress
from core.loop import Course, frozen_copy, run_course, trainable_copy
from core.losses import output_loss
from core.noise_process import END, NoiseProcess, noise_process
from core.optimisation import build_optimiser
from core.ranks import ALONE, Ranks
from core.sampling import build_sampler, set_timesteps
from core.spec import DistillationSpec, EvaluationSpec, FewStepSpec, TrainingSpec
from core.stopping import StopRequest
from core.taps import TappedUNet
from core.teacher import Teacher
from core.training_step import Objective, TrainingState

SampleDrawer = Callable[[EvaluationSpec, UNet2DConditionModel, int], None]
RoundScorer = Callable[[EvaluationSpec, UNet2DConditionModel, int], dict[str, float] | None]


@dataclass(frozen=True)
class GuidanceFolding:
    """Matches a student's plain prediction to its teacher's guided one.

    Attributes
    ----------
    teacher
        What is matched.
    process
        The noise process of both.
    guidance_scale
        w of ε(∅) + w (ε(c) - ε(∅)).
    precision
        What the U-Nets compute in.
    """

    teacher: UNet2DConditionModel
    process: NoiseProcess
    guidance_scale: float
    precision: torch.dtype
    parts: ClassVar = 1
    passes: ClassVar = 1

    def __call__(self, student: TappedUNet, batch: Batch) -> Iterator[dict[str, torch.Tensor]]:
        """Yield the loss, in one part."""
        noisy, timestep_B = batch.noisy(self.process), batch.timestep_B
        blank = batch.blank.expand(len(timestep_B))
        with torch.autocast(noisy.device.type, self.precision, enabled=self.precision != torch.float32):
            with torch.no_grad():
                prompted = batch.conditions.predict(self.teacher, noisy, timestep_B).float()
                unprompted = blank.predict(self.teacher, noisy, timestep_B).float()
            prediction, _ = student(noisy, timestep_B, batch.conditions)
        target = unprompted + self.guidance_scale * (prompted - unprompted)
        yield {"loss": output_loss(prediction, target)}


@dataclass(frozen=True)
class StepHalving:
    """Matches where one step of a student leads to where two steps, of half its length, of its guide lead.

    Salimans and Ho match the x_0 that these steps imply, weighted by the signal-to-noise ratio. Errors where
    the steps lead are the same errors, weighted by how far they carry: next to the noise less, so that the
    first steps of a sampler, where an error of ε is a huge one of x_0, do not drown the others.

    Attributes
    ----------
    guide
        What is matched.
    process
        The noise process of both.
    start, stride
        The sampler's first timestep, and the timesteps of one of its steps.
    precision
        What the U-Nets compute in.
    """

    guide: UNet2DConditionModel
    process: NoiseProcess
    start: int
    stride: int
    precision: torch.dtype
    parts: ClassVar = 1
    passes: ClassVar = 1

    def __call__(self, student: TappedUNet, batch: Batch) -> Iterator[dict[str, torch.Tensor]]:
        """Yield the loss, in one part."""
        timestep_B = batch.timestep_B
        # A sampler starts from noise alone. At its first timestep x_t would still hold a trace of a picture,
        # which a student of few steps would come to rely on.
        starts_B111 = (timestep_B == self.start)[:, None, None, None]
        noisy = torch.where(starts_B111, batch.noise_BCHW, batch.noisy(self.process))
        next_B = (timestep_B - self.stride).clamp(min=END)
        with torch.autocast(noisy.device.type, self.precision, enabled=self.precision != torch.float32):
            with torch.no_grad():
                target = self._two_steps(noisy, timestep_B, next_B, batch.conditions)
            prediction, _ = student(noisy, timestep_B, batch.conditions)
        reached = self.process.step(noisy, prediction.float(), timestep_B, next_B)
        yield {"loss": output_loss(reached, target)}

    def _two_steps(
        self, noisy_BCHW: torch.Tensor, timestep_B: torch.Tensor, next_B: torch.Tensor, conditions: Conditions
    ) -> torch.Tensor:
        halfway_B = (timestep_B + next_B) // 2
        for from_B, to_B in ((timestep_B, halfway_B), (halfway_B, next_B)):
            prediction = conditions.predict(self.guide, noisy_BCHW, from_B).float()
            noisy_BCHW = self.process.step(noisy_BCHW, prediction, from_B, to_B)
        return noisy_BCHW


def transfer(
    teacher: Teacher,
    student: UNet2DConditionModel,
    batches: BatchSource,
    spec: DistillationSpec,
    few_step: FewStepSpec,
    checkpoints: Path,
    draw_samples: SampleDrawer,
    events: EventWriter,
    stop: StopRequest,
    ranks: Ranks = ALONE,
    score: RoundScorer | None = None,
) -> UNet2DConditionModel:
    """Take a trained student through all rounds, from its newest checkpoint if it has one.

    Parameters
    ----------
    teacher
        Whose guidance is folded in.
    student
        The averaged weights that the training, or else the newest checkpoint, left.
    batches
        The data of the training.
    spec, few_step
        The job, and the transfer that it asks for.
    checkpoints
        Folder of this job's checkpoints.
    draw_samples
        Draws a sample grid, in the way that it is given, with the averaged weights after a step of the job.
    events, stop
        Where to report, and whether to stop after the current step.
    ranks
        This process among those that train together.
    score
        Scores the averaged weights, drawing in the way that it is given, after a step of the job.

    Returns
    -------
    UNet2DConditionModel
        The average of the weights of the last round.

    Raises
    ------
    DivergedError
        If the loss diverges, and in the same round again with a lower rate.
    """
    training = round_training(spec.training, few_step)
    conditioning = {"random_conditioning": few_step.random_conditioning}
    batches = replace(batches, method=spec.method.model_copy(update=conditioning))
    process = noise_process(teacher.noise_schedule(), teacher.scheduler_config)
    newest = newest_checkpoint(checkpoints)
    step = checkpoint_step(newest) if newest else spec.training.steps
    scores = checkpoint_scores(newest) if newest else {}
    total = len(few_step.rounds) * training.steps
    progress = Progress(events, "few_step", "steps", total, done=step - spec.training.steps)
    for number, steps in enumerate(few_step.rounds):
        first_step = spec.training.steps + number * training.steps
        if step > first_step + training.steps:
            continue  # a round that has just ended may still lack the score of its last step
        objective: Objective
        if steps is None:
            guide, data = None, batches
            objective = GuidanceFolding(teacher.unet, process, few_step.guidance_scale, teacher.precision)
        else:
            guide, timestep_K = frozen_copy(student), sampler_timesteps(teacher, steps)
            data = replace(batches, timestep_K=timestep_K)
            start, stride = int(timestep_K[0]), process.timesteps // steps
            objective = StepHalving(guide, process, start, stride, teacher.precision)
        state = begin_round(student, guide, training, first_step)
        state.scores = scores
        if newest and step > first_step:
            state.load(newest)
        drawing = spec.round_drawing(steps)
        course = Course(
            "few_step",
            first_step,
            training,
            data,
            progress,
            partial(draw_samples, drawing),
            ranks,
            score and partial(score, drawing),
            spec.evaluation.score_every,
        )
        run_course(course, state, objective, checkpoints, events, stop)
        student, scores = state.average, state.scores
        # The next round makes its own before it would let go of these: five more students at once.
        del state, course, objective, guide, data
    return student


def round_training(training: TrainingSpec, few_step: FewStepSpec) -> TrainingSpec:
    """Return how the steps of a round are made: as in the training, but for what the transfer says itself."""
    return training.model_copy(
        update={
            "steps": few_step.training_steps,
            "learning_rate": few_step.learning_rate,
            "learning_rate_schedule": few_step.learning_rate_schedule,
            "warmup_steps": 0,
        }
    )


def begin_round(
    student: UNet2DConditionModel,
    guide: UNet2DConditionModel | None,
    training: TrainingSpec,
    first_step: int,
) -> TrainingState:
    """Return the state before a round's first step: all of it follows from the student of the round before.

    Parameters
    ----------
    student
        The averaged weights that the round before left.
    guide
        The same, frozen, where it is what the new student learns from.
    training
        How the round's steps are made.
    first_step
        Steps of the job before the round.
    """
    trained = TappedUNet(trainable_copy(student))
    optimiser = build_optimiser(trained.parameters(), training)
    return TrainingState(trained, frozen_copy(student), optimiser, first_step, guide)


def sampler_timesteps(teacher: Teacher, steps: int) -> torch.Tensor:
    """Return the timesteps from which a transferred student makes its steps, K, falling."""
    return set_timesteps(build_sampler("ddim-trailing", teacher.scheduler_config), steps)
