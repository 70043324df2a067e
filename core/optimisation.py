"""Optimiser, learning rate, precision, and the average of the weights."""

import math
from collections.abc import Iterable

import torch
from torch import nn

from core.spec import TrainingSpec

ADAM_BETAS = (0.9, 0.999)
BFLOAT16_ARITHMETIC = ("avx512_bf16", "amx_bf16", "bf16")  # as x86 and ARM call theirs
EMULATED_BFLOAT16 = (
    "this device has no bfloat16 arithmetic (a processor's avx512_bf16, amx_bf16 or ARM's bf16, or a CUDA "
    "device of Ampere or later) and emulates it, many times slower: leave training.precision out to train in "
    "float32"
)


def build_optimiser(parameters: Iterable[nn.Parameter], training: TrainingSpec) -> torch.optim.AdamW:
    """Return AdamW in its fused form, which both CPU and CUDA have."""
    return torch.optim.AdamW(
        parameters,
        lr=training.learning_rate,
        betas=ADAM_BETAS,
        weight_decay=training.weight_decay,
        fused=True,
    )


def learning_rate(training: TrainingSpec, step: int) -> float:
    """Return the learning rate of the step after `step` finished ones: linear warm-up, then the schedule."""
    warm_up = min(1.0, (step + 1) / (training.warmup_steps + 1))
    if training.learning_rate_schedule == "constant":
        return training.learning_rate * warm_up
    after = max(0, step - training.warmup_steps) / max(1, training.steps - training.warmup_steps)
    return training.learning_rate * warm_up * 0.5 * (1 + math.cos(math.pi * after))


def choose_precision(training: TrainingSpec, device: torch.device) -> torch.dtype:
    """Return the precision of the forward passes: as specified, else bfloat16 where an accelerator has it."""
    is_slow = device.type == "cpu" or emulates_bfloat16(device)
    name = training.precision or ("float32" if is_slow else "bfloat16")
    return torch.bfloat16 if name == "bfloat16" else torch.float32


def emulates_bfloat16(device: torch.device) -> bool:
    """Return whether a device can compute in bfloat16 only by way of other arithmetic.

    So do CUDA devices before Ampere, such as T4 and V100, and processors without its instructions: a
    convolution of 128 channels takes 74 times as long in it as in float32 (16 pictures of 32 by 32, one core
    of an AMD EPYC of the third generation).
    """
    if device.type == "cuda":
        return not torch.cuda.is_bf16_supported(including_emulation=False)
    abilities = torch.cpu.get_capabilities()
    return device.type == "cpu" and not any(abilities.get(name) for name in BFLOAT16_ARITHMETIC)


@torch.no_grad()
def update_average(average: nn.Module, model: nn.Module, decay: float, step: int) -> None:
    """Move the exponential average of the weights towards the model after its `step`-th step.

    The decay starts low and rises to its value, so that the starting weights do not linger in a short run.
    """
    decay = min(decay, (1 + step) / (10 + step))
    torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1 - decay)
