"""What gradient checkpointing saves and costs: ``python -m benchmarks.gradient_checkpointing``.

A student of the bundled teacher, of its real shape, makes forward and backward passes with and without it in
turns. What matters are the ratios; the counted memory is what the estimate goes by.
"""

import argparse
import statistics
import time

import torch
from diffusers import UNet2DConditionModel
from rich.progress import track

from benchmarks.paper.experiments import WEIGHTS
from core.cost import random_conditions
from core.memory_use import computation_memory_bytes
from core.registry import read_teacher
from core.spec import derive_student
from core.unet_layout import unet_layout
from core.unet_memory import checkpointed_bytes, saved_bytes

STUDENT = "b-small"
MEBIBYTE = 2**20


def main() -> None:
    """Measure both and write a table."""
    parser = argparse.ArgumentParser(description="Measure gradient checkpointing.")
    parser.add_argument("--batch-size", type=int, default=16, help="samples of one pass")
    parser.add_argument("--turns", type=int, default=5, help="timed passes of each kind")
    options = parser.parse_args()
    teacher = read_teacher(WEIGHTS)
    config = derive_student(teacher.unet_config, STUDENT)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    unet = UNet2DConditionModel.from_config(config).to(device).train()
    batch = options.batch_size
    noisy = torch.randn(
        batch, config["in_channels"], config["sample_size"], config["sample_size"], device=device
    )
    timestep = torch.randint(1_000, (batch,), device=device)
    conditions = random_conditions(config, teacher.prompt_tokens, batch, device)

    def make_pass() -> None:
        conditions.predict(unet, noisy, timestep).square().mean().backward()
        unet.zero_grad()

    layout = unet_layout(config, prompt_tokens=teacher.prompt_tokens)
    ways = {"without": (unet.disable_gradient_checkpointing, saved_bytes)}
    ways["with"] = (unet.enable_gradient_checkpointing, checkpointed_bytes)
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    memory = {}
    for way, (switch, _) in ways.items():
        switch()
        memory[way] = computation_memory_bytes(make_pass, [unet], device)
    for _ in track(range(options.turns), "passes"):
        for way, (switch, _) in ways.items():
            switch()
            began = time.perf_counter()
            make_pass()
            if device.type == "cuda":
                torch.cuda.synchronize()
            seconds[way].append(time.perf_counter() - began)
    print(f"| {STUDENT}, {batch} samples | s a pass | MiB at most | counted MiB of activations |")
    print("|---|---:|---:|---:|")
    for way, (_, count) in ways.items():
        figures = statistics.median(seconds[way]), memory[way] / MEBIBYTE, batch * count(layout, 4) / MEBIBYTE
        print(f"| {way} | {figures[0]:.2f} | {figures[1]:,.0f} | {figures[2]:,.0f} |")
    ratios = statistics.median(
        again / kept for again, kept in zip(seconds["with"], seconds["without"], strict=True)
    )
    print(f"| with : without | {ratios:.2f} | {memory['with'] / memory['without']:.2f} | |")


if __name__ == "__main__":
    main()
