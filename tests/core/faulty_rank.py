"""A rank of which the second has a fault from its third step on: ``-m tests.core.faulty_rank FAULT …``.

What follows the fault is for `core.run`.
"""

import os
import sys
from collections.abc import Iterator

import torch

from core.batches import Batch
from core.noise_matching import NoiseMatching
from core.run import main
from core.taps import TappedUNet

SOUND_STEPS = 2

fault, *arguments = sys.argv[1:]
match_soundly = NoiseMatching.__call__
steps_begun = 0


def match(self: NoiseMatching, student: TappedUNet, batch: Batch) -> Iterator[dict[str, torch.Tensor]]:
    global steps_begun
    steps_begun += 1
    for terms in match_soundly(self, student, batch):
        if steps_begun > SOUND_STEPS and fault == "out_of_memory":
            raise torch.OutOfMemoryError
        if steps_begun > SOUND_STEPS and fault == "diverged":
            terms["loss"] = terms["loss"] * torch.nan
        yield terms


if os.environ["RANK"] == "1":
    NoiseMatching.__call__ = match  # type: ignore[method-assign]
sys.exit(main(arguments))
