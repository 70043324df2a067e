"""A rank with a fault: ``-m tests.core.faulty_rank FAULT …``. What follows the fault is for `core.run`.

The second one runs out of memory or diverges from its third step on; the first one dies while it exports,
once in a launch.
"""

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from core import pipeline
from core.batches import Batch
from core.export import export_student
from core.noise_matching import NoiseMatching
from core.rank_ends import FOLDER_VARIABLE
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


def die_once(*arguments: Any) -> Path:
    died = Path(os.environ[FOLDER_VARIABLE]) / "died"
    if died.exists():
        return export_student(*arguments)
    died.touch()
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


if os.environ["RANK"] == "1":
    NoiseMatching.__call__ = match  # type: ignore[method-assign]
elif fault == "dies_exporting":
    pipeline.export_student = die_once
sys.exit(main(arguments))
