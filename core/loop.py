"""The training loop: the student learns to predict what its teacher predicts.

One step reads nothing back from the device and does no I/O; the loop around it is plain Python that reports,
draws samples, writes checkpoints and stops. Progress is counted in samples seen, from which all randomness of
a step follows, so a run that was killed and resumed ends with the weights of one that was not.

Axes: B batch, C channels, H W height and width.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from torch import nn

from core.batches import Batch, BatchSource
from core.checkpoints import load_checkpoint, newest_checkpoint, save_checkpoint
from core.events import EventWriter, Progress
from core.losses import distillation_loss
from core.optimisation import build_optimiser, learning_rate, update_average
from core.running_metrics import METRICS, RunningMetrics
from core.spec import DistillationSpec, MethodSpec, TrainingSpec
from core.stopping import StopRequest
from core.taps import TappedUNet, tap_pair
from core.teacher import Teacher


@dataclass
class TrainingState:
    """What a step changes.

    Attributes
    ----------
    student
        The student's U-Net with its taps and projectors: what is trained and clipped.
    average
        The exponential average of the student's U-Net: what is drawn with, evaluated and exported.
    optimiser
        AdamW over all of `student`.
    step
        Steps finished.
    """

    student: TappedUNet
    average: UNet2DConditionModel
    optimiser: torch.optim.Optimizer
    step: int = 0


def train(
    teacher: Teacher,
    student: UNet2DConditionModel,
    batches: BatchSource,
    spec: DistillationSpec,
    checkpoints: Path,
    draw_samples: Callable[[UNet2DConditionModel, int], None],
    events: EventWriter,
    stop: StopRequest,
) -> UNet2DConditionModel:
    """Train a student, from its newest checkpoint if it has one.

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

    Returns
    -------
    UNet2DConditionModel
        The average of the student's weights.

    Raises
    ------
    DivergedError
        If the loss is not finite.
    """
    training = spec.training
    tapped_teacher, tapped_student = tap_pair(teacher.unet, student, spec.seed)
    tapped_student.to(teacher.device)
    optimiser = build_optimiser(tapped_student.parameters(), training)
    state = TrainingState(tapped_student, frozen_copy(student), optimiser)
    if checkpoint := newest_checkpoint(checkpoints):
        state.step = load_checkpoint(checkpoint, state.student, state.average, state.optimiser)

    alphas_cumprod = teacher.noise_schedule()
    progress = Progress(events, "training", "steps", training.steps, done=state.step)
    metrics = RunningMetrics(events, teacher.device)
    while state.step < training.steps:
        batch = batches.batch(state.step * training.batch_size, training.batch_size)
        metrics.add(
            train_step(state, tapped_teacher, batch, alphas_cumprod, training, spec.method, teacher.precision)
        )
        progress.report(state.step)

        last = state.step == training.steps
        saving = last or stop.requested or state.step % training.checkpoint_every == 0
        if saving or state.step % training.log_every == 0:
            metrics.report(state.step, training.batch_size, learning_rate(training, state.step - 1))
        metrics.pause()
        if last or state.step % training.sample_every == 0:
            draw_samples(state.average, state.step)
        if saving:
            path = save_checkpoint(checkpoints, state.step, state.student, state.average, state.optimiser)
            events.write("checkpoint", step=state.step, path=f"{checkpoints.name}/{path.name}")
            stop.check()
        metrics.go_on()
    return state.average


def train_step(
    state: TrainingState,
    teacher: TappedUNet,
    batch: Batch,
    alphas_cumprod: torch.Tensor,
    training: TrainingSpec,
    method: MethodSpec,
    precision: torch.dtype,
) -> torch.Tensor:
    """Make one optimiser step and return the values of `METRICS`, left on the device."""
    for group in state.optimiser.param_groups:
        group["lr"] = learning_rate(training, state.step)
    metrics = torch.zeros(len(METRICS), device=alphas_cumprod.device)
    micro_batch_size = training.micro_batch_size or training.batch_size
    for micro in batch.split(micro_batch_size):
        # x_t = √ᾱ_t x_0 + √(1 - ᾱ_t) ε
        alpha_B111 = alphas_cumprod[micro.timestep_B][:, None, None, None]
        noisy_BCHW = alpha_B111.sqrt() * micro.latents_BCHW + (1 - alpha_B111).sqrt() * micro.noise_BCHW
        with torch.autocast(noisy_BCHW.device.type, precision, enabled=precision != torch.float32):
            with torch.no_grad():
                target = teacher(noisy_BCHW, micro.timestep_B, micro.prompts_BLD)
            prediction = state.student(noisy_BCHW, micro.timestep_B, micro.prompts_BLD)
        loss = distillation_loss(prediction, target, method)
        share = micro_batch_size / training.batch_size
        (loss.total * share).backward()
        metrics[:3] += torch.stack(loss).detach() * share
    metrics[3] = nn.utils.clip_grad_norm_(state.student.parameters(), training.gradient_clip)
    state.optimiser.step()
    state.optimiser.zero_grad()
    state.step += 1
    update_average(state.average, state.student.unet, training.ema_decay, state.step)
    return metrics


def frozen_copy(unet: UNet2DConditionModel) -> UNet2DConditionModel:
    """Return a frozen copy of a model, without its taps."""
    duplicate = UNet2DConditionModel.from_config(unet.config).to(unet.device)
    duplicate.load_state_dict(unet.state_dict())
    return duplicate.eval().requires_grad_(False)
