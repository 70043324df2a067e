"""What a U-Net costs: parameters, multiply-accumulates, and the time of one picture."""

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import nn

from core.conditions import Conditions

TIMED_RUNS = 5
SIZES = 6  # of the picture, its crop and its target, that SDXL's U-Net is told


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
    conditions = random_conditions(config, prompt_tokens, 1, torch.device("meta"))
    with torch.no_grad():
        conditions.predict(unet, latent, torch.zeros(1, device="meta"))
    return total


def random_conditions(
    unet_config: Mapping[str, Any], prompt_tokens: int, samples: int, device: torch.device
) -> Conditions:
    """Return conditions of the shape that a U-Net takes, for measuring it."""
    width = unet_config["cross_attention_dim"]
    embeddings_BLD = torch.randn(samples, prompt_tokens, width, device=device)
    if unet_config.get("addition_embed_type") is None:
        return Conditions(embeddings_BLD)
    sizes = SIZES * unet_config["addition_time_embed_dim"]
    pooled = unet_config["projection_class_embeddings_input_dim"] - sizes
    added = {"text_embeds": pooled, "time_ids": SIZES}
    return Conditions(
        embeddings_BLD, {name: torch.randn(samples, count, device=device) for name, count in added.items()}
    )


def milliseconds_per_picture(draws: Sequence[Callable[[], torch.Tensor]]) -> list[float]:
    """Return for each of several ways to draw one picture its median time.

    They take turns, so that a machine that slows down meanwhile slows all of them. All have been called
    before: the first call of each takes longer.
    """
    times: list[list[float]] = [[] for _ in draws]
    for _ in range(TIMED_RUNS):
        for draw, taken in zip(draws, times, strict=True):
            started = time.perf_counter()
            draw().cpu()  # waits for the device
            taken.append(time.perf_counter() - started)
    return [1000 * statistics.median(taken) for taken in times]


def _on_meta_device(unet_config: Mapping[str, Any]) -> UNet2DConditionModel:
    with torch.device("meta"):
        return UNet2DConditionModel.from_config(unet_config)
