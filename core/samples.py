"""The sample grids of a job: the same prompts and seeds every time, so that one sees the student learn."""

from dataclasses import dataclass
from pathlib import Path

import torch

from core.artist import Artist
from core.captions import CaptionSet
from core.events import EventWriter
from core.files import replacing
from core.grids import draw_grid
from core.randomness import derived_seed
from core.spec import DistillationSpec

CHOSEN_PER_SPLIT = 4

PICTURES_AT_ONCE = 8
"""Beside a training, whose whole state stays in memory; fewer where the evaluation draws fewer."""


@dataclass(frozen=True)
class SampleGrid:
    """Prompts with their seeds, and what the teacher draws of them.

    Attributes
    ----------
    prompts, seeds
        One of each a column.
    teacher_pictures
        The first row, BCHW, uint8.
    """

    prompts: list[str]
    seeds: list[int]
    teacher_pictures: torch.Tensor

    def save(self, student: Artist, path: Path, labels: tuple[str, str], title: str = "") -> None:
        """Draw the student's row and write the grid."""
        row = _draw_row(student, self.prompts, self.seeds)
        rows = zip(labels, (self.teacher_pictures, row), strict=True)
        with replacing(path) as temporary:
            draw_grid(list(rows), self.prompts, title).save(temporary, format="PNG")

    def save_sample(self, student: Artist, step: int, folder: Path, events: EventWriter) -> None:
        """Write the grid of a training step and report it."""
        path = folder / f"step-{step:08d}.png"
        self.save(student, path, ("teacher", f"student\nstep {step}"))
        events.write("sample", step=step, path=f"{folder.name}/{path.name}", prompts=self.prompts)


def prepare_samples(teacher: Artist, captions: CaptionSet, spec: DistillationSpec) -> SampleGrid:
    """Choose the prompts, unless the specification gives them, and draw the teacher's row."""
    prompts = spec.evaluation.grid_prompts or [
        text
        for split, size in captions.splits.items()
        for text in captions.texts(
            captions.choose(split, min(CHOSEN_PER_SPLIT, size), derived_seed(spec.seed, "samples"))
        )
    ]
    seeds = [derived_seed(spec.seed, "samples", column) for column in range(len(prompts))]
    return SampleGrid(prompts, seeds, _draw_row(teacher, prompts, seeds))


def _draw_row(artist: Artist, prompts: list[str], seeds: list[int]) -> torch.Tensor:
    at_once = min(artist.evaluation.batch_size, PICTURES_AT_ONCE)
    parts = [slice(start, start + at_once) for start in range(0, len(prompts), at_once)]
    return torch.cat([artist.draw(prompts[part], seeds[part]) for part in parts])
