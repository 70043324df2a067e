"""What a U-Net costs: parameters, multiply-accumulates, and the time of one picture."""

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import nn

TIMED_RUNS = 5


def count_parameters(unet_config: Mapping[str, Any]) -> int:
    """Return the number of parameters of a U-Net, without making its weights."""
    return sum(parameter.numel() for parameter in _on_meta_device(unet_config).parameters())


def count_multiply_accumulates(unet_config: Mapping[str, Any], prompt_tokens: int) -> int:
    """Return the multiply-accumulates of all linear and convolution layers in one forward pass of one sample.

    Parameters
    ----------
    unet_config
        The U-Net, whose ``sample_size`` is the side of the latent.
    prompt_tokens
        Length of the text condition.
    """
    unet = _on_meta_device(unet_config)
    total = 0

    def add(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        nonlocal total
        weight = module.weight
        total += output.numel() * math.prod(weight.shape[1:])  # what each output value is a sum of

    for module in unet.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            module.register_forward_hook(add)
    config = unet.config
    latent = torch.empty(1, config.in_channels, config.sample_size, config.sample_size, device="meta")
    condition = torch.empty(1, prompt_tokens, config.cross_attention_dim, device="meta")
    with torch.no_grad():
        unet(latent, torch.zeros(1, device="meta"), condition)
    return total


def milliseconds_per_picture(draws: Sequence[Callable[[], torch.Tensor]]) -> list[float]:
    """Return for each of several ways to draw one picture its median time.

    They take turns, so that a machine that slows down meanwhile slows all of them; the first turn does not
    count.
    """
    times: list[list[float]] = [[] for _ in draws]
    for _ in range(TIMED_RUNS + 1):
        for draw, taken in zip(draws, times, strict=True):
            started = time.perf_counter()
            draw().cpu()  # waits for the device
            taken.append(time.perf_counter() - started)
    return [1000 * statistics.median(taken[1:]) for taken in times]


def _on_meta_device(unet_config: Mapping[str, Any]) -> UNet2DConditionModel:
    with torch.device("meta"):
        return UNet2DConditionModel.from_config(unet_config)
