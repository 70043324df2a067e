"""What gradient checkpointing saves and costs: ``python -m benchmarks.gradient_checkpointing``.

A student of the bundled teacher, of its real shape, makes forward and backward passes with and without it in
turns. What matters are the ratios; the counted memory is what the estimate goes by.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from diffusers import UNet2DConditionModel
from rich.progress import track

from benchmarks.paper.experiments import WEIGHTS
from core.cost import random_conditions
from core.memory_use import computation_memory_bytes
from core.spec import derive_student
from core.teacher_folder import read_teacher
from core.unet_layout import unet_layout
from core.unet_memory import FLOAT32_BYTES, checkpointed_bytes, saved_bytes

STUDENT = "b-small"
MEBIBYTE = 2**20


@dataclass
class Way:
    """Passes with or without gradient checkpointing.

    Attributes
    ----------
    switch
        Turns it on or off.
    counted_bytes
        What the estimate counts as saved by one sample.
    memory_bytes
        The most that a pass was found to take.
    seconds
        Of each timed pass.
    """

    switch: Callable[[], None]
    counted_bytes: int
    memory_bytes: int = 0
    seconds: list[float] = field(default_factory=list)


def main() -> None:
    """Measure both and write a table."""
    parser = argparse.ArgumentParser(description="Measure gradient checkpointing.")
    parser.add_argument("--batch-size", type=int, default=16, help="samples of one pass")
    parser.add_argument("--turns", type=int, default=5, help="timed passes of each kind")
    options = parser.parse_args()
    without, again = measure(options.batch_size, options.turns)
    print(
        f"| {STUDENT}, {options.batch_size} samples | s a pass | MiB at most | counted MiB of activations |"
    )
    print("|---|---:|---:|---:|")
    for name, way in (("without", without), ("with", again)):
        counted = options.batch_size * way.counted_bytes / MEBIBYTE
        seconds = statistics.median(way.seconds)
        print(f"| {name} | {seconds:.2f} | {way.memory_bytes / MEBIBYTE:,.0f} | {counted:,.0f} |")
    ratio = statistics.median(more / less for more, less in zip(again.seconds, without.seconds, strict=True))
    print(f"| with : without | {ratio:.2f} | {again.memory_bytes / without.memory_bytes:.2f} | |")


def measure(batch_size: int, turns: int) -> tuple[Way, Way]:
    """Make passes without and with gradient checkpointing in turns, after one of each for its memory."""
    teacher = read_teacher(WEIGHTS)
    config = derive_student(teacher.unet_config, STUDENT)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    unet = UNet2DConditionModel.from_config(config).to(device).train()
    size = config["sample_size"]
    noisy_BCHW = torch.randn(batch_size, config["in_channels"], size, size, device=device)
    timestep_B = torch.randint(1_000, (batch_size,), device=device)
    conditions = random_conditions(config, teacher.prompt_tokens, batch_size, device)

    def make_pass() -> None:
        conditions.predict(unet, noisy_BCHW, timestep_B).square().mean().backward()
        unet.zero_grad()
        if device.type == "cuda":
            torch.cuda.synchronize()

    layout = unet_layout(config, prompt_tokens=teacher.prompt_tokens)
    without = Way(unet.disable_gradient_checkpointing, saved_bytes(layout, FLOAT32_BYTES))
    again = Way(unet.enable_gradient_checkpointing, checkpointed_bytes(layout, FLOAT32_BYTES))
    for way in (without, again):
        way.switch()
        way.memory_bytes = computation_memory_bytes(make_pass, [unet], device)
    for _ in track(range(turns), "passes"):
        for way in (without, again):
            way.switch()
            began = time.perf_counter()
            make_pass()
            way.seconds.append(time.perf_counter() - began)
    return without, again


if __name__ == "__main__":
    main()
