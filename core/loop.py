"""The training loop: an objective is stepped down, course by course.

It is plain Python around `core.training_step` that reports, draws samples, writes checkpoints and stops.
Steps are counted over the whole job, from which all randomness of a step follows, so a run that was killed
and resumed ends with the weights of one that was not.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from torch import nn

from core.batches import BatchSource
from core.checkpoints import (
    checkpoint_step,
    load_modules,
    newest_checkpoint,
    save_checkpoint,
)
from core.divergence import DivergenceGuard
from core.events import EventWriter, Phase, Progress
from core.files import write_json
from core.noise_matching import NoiseMatching
from core.noise_process import noise_process
from core.optimisation import build_optimiser, learning_rate
from core.ranks import ALONE, Ranks
from core.running_metrics import RunningMetrics
from core.spec import DistillationSpec, TrainingSpec
from core.step_requests import FOLDER as REQUESTS
from core.step_requests import StepRequest, StepRequests
from core.stopping import Stopped, StopRequest
from core.taps import tap_pair
from core.teacher import Teacher
from core.training_step import Objective, TrainingState, train_step

DIVERGENCE_FILE = "divergence.json"

Scorer = Callable[[UNet2DConditionModel, int], dict[str, float] | None]
"""Scores averaged weights after a step of the job; None where it was stopped or has nothing to judge by."""


@dataclass(frozen=True)
class Course:
    """A stretch of steps with one objective.

    Attributes
    ----------
    phase
        What it is reported as.
    first_step
        Steps of the job before it.
    training
        How many steps it has, and how they are made.
    batches
        The data.
    progress
        Counts its steps.
    draw_samples
        Draws a sample grid with the averaged weights after a step of the job.
    ranks
        This process among those that train together.
    score, score_every
        Scores the averaged weights, at every step of the job that `score_every` divides; None, or 0, for no
        scores.
    """

    phase: Phase
    first_step: int
    training: TrainingSpec
    batches: BatchSource
    progress: Progress
    draw_samples: Callable[[UNet2DConditionModel, int], None]
    ranks: Ranks = ALONE
    score: Scorer | None = None
    score_every: int = 0

    def is_scored_at(self, step: int) -> bool:
        """Tell whether the student is scored after a step of the job, which is one of this course."""
        return bool(self.score and self.score_every) and step % self.score_every == 0


def train(
    teacher: Teacher,
    student: UNet2DConditionModel,
    batches: BatchSource,
    spec: DistillationSpec,
    checkpoints: Path,
    draw_samples: Callable[[UNet2DConditionModel, int], None],
    events: EventWriter,
    stop: StopRequest,
    ranks: Ranks = ALONE,
    score: Scorer | None = None,
) -> UNet2DConditionModel:
    """Train a student to predict what its teacher predicts, from its newest checkpoint if it has one.

    Parameters
    ----------
    teacher
        What it learns from.
    student
        The student's U-Net with its starting weights.
    batches
        The data.
    spec
        The job.
    checkpoints
        Folder of this job's checkpoints.
    draw_samples
        Draws a sample grid with the averaged weights after a step.
    events, stop
        Where to report, and whether to stop after the current step.
    ranks
        This process among those that train together.
    score
        Scores the averaged weights after a step.

    Returns
    -------
    UNet2DConditionModel
        The average of the student's weights: of the newest checkpoint, if that lies beyond the training.

    Raises
    ------
    DivergedError
        If the loss diverges, and again with a lower rate.
    """
    average, newest = frozen_copy(student), newest_checkpoint(checkpoints)
    if newest and checkpoint_step(newest) > spec.training.steps:
        load_modules(newest, {"average": average})
        return average
    tapped_teacher, tapped_student = tap_pair(teacher.unet, student, spec.method.features, spec.seed)
    tapped_student.to(teacher.device)
    state = TrainingState(
        tapped_student, average, build_optimiser(tapped_student.parameters(), spec.training)
    )
    if newest:
        state.load(newest)
    process = noise_process(teacher.noise_schedule(), teacher.scheduler_config)
    objective = NoiseMatching(
        tapped_teacher,
        process,
        spec.method,
        stride=max(1, process.timesteps // spec.evaluation.steps),
        precision=teacher.precision,
    )
    progress = Progress(events, "training", "steps", spec.training.steps, done=state.step)
    course = Course(
        "training",
        0,
        spec.training,
        batches,
        progress,
        draw_samples,
        ranks,
        score,
        spec.evaluation.score_every,
    )
    run_course(course, state, objective, checkpoints, events, stop)
    # Untapped, what is no longer used is freed at once: a hook refers to the model that refers to it.
    tapped_teacher.untap()
    tapped_student.untap()
    return average


def run_course(
    course: Course,
    state: TrainingState,
    objective: Objective,
    checkpoints: Path,
    events: EventWriter,
    stop: StopRequest,
) -> None:
    """Step a student to the end of a course, from wherever in it the student is.

    Between two steps it also does what it is asked for (`core.step_requests`), which changes nothing of the
    steps: a checkpoint comes with a report of the losses, as every one does, so that no diverged one is kept.

    A course whose loss diverges goes back once, to its last checkpoint or else its start, and on from there
    with a lower learning rate, which its later checkpoints remember. A run that is killed before the first of
    them diverges, and goes back, as it did before.

    Of several ranks all step, judge and stop alike; the first alone draws, scores and saves, while the others
    wait.

    Scores are kept in the checkpoints. One that a stop kept from being made is the first thing that the
    resumed run makes, so that none is lost and none made twice.

    Raises
    ------
    DivergedError
        If the loss diverges again.
    Stopped
        If a stop was asked for, after all that is needed to go on has been saved.
    """
    training, first, ranks = course.training, course.first_step, course.ranks
    share = ranks.share(training.batch_size)
    last = first + training.steps
    start = _on_host(state.student) if state.step == first else None
    if training.gradient_checkpointing:
        state.student.unet.enable_gradient_checkpointing()
    state.replica = ranks.replicate(state.student, is_static=_is_static(objective, training, ranks))
    requests = StepRequests(checkpoints.parent / REQUESTS)

    def asked_for(request: StepRequest) -> bool:
        return ranks.any(ranks.is_first and requests.take(request))

    def save() -> None:
        path = save_checkpoint(
            checkpoints,
            state.step,
            state.modules,
            state.optimiser,
            state.guard,
            state.scores,
            course.batches.embeddings.origin,
        )
        events.write("checkpoint", step=state.step, path=f"{checkpoints.name}/{path.name}")

    if state.step > first and course.is_scored_at(state.step) and state.step not in state.scores:
        if _score(course, state):
            save()
        if ranks.any(stop.requested):
            raise Stopped
    metrics = RunningMetrics(events, ranks)
    while state.step < last:
        batch = course.batches.batch(state.step * training.batch_size, training.batch_size, share)
        metrics.add(train_step(state, objective, batch, training, state.step - first, ranks.count))
        course.progress.advance(1)

        at_end, stopping = state.step == last, ranks.any(stop.requested)
        saving = at_end or stopping or state.step % training.checkpoint_every == 0
        saving |= asked_for("checkpoint")
        scoring = course.is_scored_at(state.step)
        if saving or scoring or state.step % training.log_every == 0:
            rate = learning_rate(training, state.step - first - 1) * state.guard.rate_factor
            means = metrics.report(state.step, training.batch_size, rate)
            if trouble := state.guard.judge(state.step, means):
                _go_back(trouble, course, state, start, checkpoints, events)
                ranks.wait()
                metrics.go_on()
                continue
        metrics.pause()
        sampling = asked_for("sample") or at_end or state.step % training.sample_every == 0
        if sampling and ranks.is_first:
            course.draw_samples(state.average, state.step)
        if scoring and not stopping:
            _score(course, state)
            stopping = ranks.any(stop.requested)  # which may have cut the score short
            saving |= stopping
        if saving and ranks.is_first:
            save()
        if sampling or saving:
            ranks.wait()
        if saving:
            start = None
        if stopping:
            raise Stopped
        metrics.go_on()


def _score(course: Course, state: TrainingState) -> bool:
    """Score the student on the first rank, and tell whether it was, so that there is a score to be saved."""
    if course.score is None or not course.ranks.is_first:
        return False
    score = course.score(state.average, state.step)
    if score is not None:
        state.scores[state.step] = score
    return score is not None


def _is_static(objective: Objective, training: TrainingSpec, ranks: Ranks) -> bool:
    """Tell whether a step is a single pass through the student on every rank."""
    largest_share = -(-training.batch_size // ranks.count)
    in_one = largest_share <= (training.micro_batch_size or largest_share)
    return in_one and objective.parts == objective.passes == 1


def _go_back(
    trouble: str,
    course: Course,
    state: TrainingState,
    start: Mapping[str, torch.Tensor] | None,
    checkpoints: Path,
    events: EventWriter,
) -> None:
    """Take a diverged student back to where it was sound, or give it up when that was done before.

    Parameters
    ----------
    trouble
        What is wrong.
    course, state, checkpoints, events
        As of `run_course`.
    start
        The student's weights at the start of the course, while it has no checkpoint.
    """
    guard, diverged_at = state.guard, state.step
    newest = newest_checkpoint(checkpoints) if start is None else None
    if guard.has_gone_back or (start is None and newest is None):
        if course.ranks.is_first:
            write_json(checkpoints.parent / DIVERGENCE_FILE, guard.to_json())
        raise guard.error(trouble, course.phase)
    if newest is not None:
        state.load(newest)
    elif start is not None:
        state.restart(start, course.first_step)
        state.guard = DivergenceGuard()
    state.guard.go_back(abandoned=guard.reports)
    course.progress.go_back(diverged_at - state.step)
    events.warning(
        f"{trouble}: going back to step {state.step}, "
        f"with {state.guard.rate_factor:g} times the learning rate"
    )


def _on_host(module: nn.Module) -> dict[str, torch.Tensor]:
    """Copy a module's weights to where they take no memory from the accelerator."""
    return {name: weight.detach().to("cpu", copy=True) for name, weight in module.state_dict().items()}


def frozen_copy(unet: UNet2DConditionModel) -> UNet2DConditionModel:
    """Return a frozen copy of a model, without its taps."""
    return trainable_copy(unet).eval().requires_grad_(False)


def trainable_copy(unet: UNet2DConditionModel) -> UNet2DConditionModel:
    """Return a copy of a model in training mode, without its taps."""
    duplicate = UNet2DConditionModel.from_config(unet.config).to(unet.device)
    duplicate.load_state_dict(unet.state_dict())
    return duplicate.train()
