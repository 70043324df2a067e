"""Sample grids: few pictures are drawn at once, and they are the same however many."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from core.artist import Artist
from core.captions import CaptionSet
from core.samples import prepare_samples
from core.spec import DistillationSpec, EvaluationSpec
from core.teacher import Teacher

PROMPTS = [f"small cat {number}" for number in range(10)]


@pytest.mark.parametrize(("batch_size", "drawn"), [(3, [3, 3, 3, 1]), (32, [8, 2])])
def test_a_grid_draws_a_few_pictures_at_once(
    teacher: Teacher,
    captions: CaptionSet,
    make_spec: Callable[..., DistillationSpec],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    batch_size: int,
    drawn: list[int],
) -> None:
    evaluation = EvaluationSpec(steps=1, batch_size=batch_size, grid_prompts=PROMPTS)
    artist = Artist(teacher, teacher.unet, evaluation)
    draw, at_once = Artist.draw, []

    def count(artist: Artist, texts: list[str], *arguments: Any) -> torch.Tensor:
        at_once.append(len(texts))
        return draw(artist, texts, *arguments)

    monkeypatch.setattr(Artist, "draw", count)
    samples = prepare_samples(artist, captions, make_spec(evaluation=evaluation.model_dump()))
    assert at_once == drawn
    samples.save(artist, tmp_path / "grid.png", ("teacher", "student"))
    assert at_once == 2 * drawn
    monkeypatch.undo()
    whole = artist.draw(samples.prompts, samples.seeds)
    assert (samples.teacher_pictures.int() - whole.int()).abs().max() <= 1
    replace(samples, teacher_pictures=whole).save(artist, tmp_path / "whole.png", ("teacher", "student"))
    grid, expected = (
        np.asarray(Image.open(tmp_path / name), dtype=int) for name in ("grid.png", "whole.png")
    )
    assert abs(grid - expected).max() <= 1
