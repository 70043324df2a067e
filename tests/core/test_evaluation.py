"""What is measured at the end, and the pictures of it."""

import json
import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import CLIPModel

from core.artist import Artist
from core.captions import CaptionSet, prepare_captions
from core.cost import count_multiply_accumulates
from core.evaluation import choose_captions, evaluate
from core.evaluation_clip import load_evaluation_clip
from core.events import EventWriter
from core.grids import CELL, GAP, LABEL_WIDTH, draw_grid
from core.references import References
from core.registry import read_teacher
from core.spec import DistillationSpec, EvaluationSpec
from core.stopping import StopRequest
from core.teacher import Teacher, load_teacher

EVALUATION = EvaluationSpec(samples=5, steps=2, guidance_scale=2, batch_size=2)


@pytest.fixture
def captions(tmp_path: Path) -> CaptionSet:
    texts = ["small cat", "large cat", "small dog", "a cat on the moon"]
    spec = {
        "teacher": "t",
        "captions": {"kind": "inline", "texts": texts},
        "drawn": {"texts": ["small cat"]},
    }
    return prepare_captions(DistillationSpec.model_validate(spec), tmp_path / "captions", [])


@pytest.fixture
def events(tmp_path: Path) -> Iterator[EventWriter]:
    with closing(EventWriter(tmp_path / "events.jsonl")) as writer:
        yield writer


def test_a_teacher_beside_itself_scores_the_same_in_both_splits(
    teacher: Teacher, captions: CaptionSet, events: EventWriter
) -> None:
    artist = Artist(teacher, teacher.unet, EVALUATION)
    values = evaluate(artist, artist, captions, 0, events, StopRequest())
    assert values["teacher"]["parameters"] == values["student"]["parameters"] == teacher.info.parameters
    assert values["teacher"]["milliseconds_per_picture"] > 0
    for split in ("drawn", "text_only"):
        assert values[split]["pictures"] == EVALUATION.samples
        assert values[split]["teacher"] == pytest.approx(values[split]["student"])
        assert values[split]["teacher"]["frechet_distance"] > 0
        assert -1 <= values[split]["teacher"]["clip_score"] <= 1
    assert values["drawn"]["teacher"]["nearest_pictures"] == EVALUATION.samples
    assert values["text_only"]["teacher"]["nearest_pictures"] < EVALUATION.samples
    json.dumps(values, allow_nan=False)


def test_without_an_evaluation_clip_only_costs_are_measured(
    teachers_dir: Path, captions: CaptionSet, events: EventWriter, tmp_path: Path
) -> None:
    folder = tmp_path / "teacher"
    shutil.copytree(teachers_dir / "weights", folder)
    shutil.rmtree(folder / "evaluation_clip")
    teacher = load_teacher(read_teacher(folder), torch.device("cpu"))
    artist = Artist(teacher, teacher.unet, EVALUATION)
    assert set(evaluate(artist, artist, captions, 0, events, StopRequest())) == {"teacher", "student"}
    (warning,) = map(json.loads, (tmp_path / "events.jsonl").read_text().splitlines())
    assert warning["type"] == "warning"


def test_embeddings_are_those_of_the_clip_model_itself(teacher: Teacher) -> None:
    clip = load_evaluation_clip(teacher)
    model = CLIPModel.from_pretrained(teacher.info.path / "evaluation_clip")
    pictures = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    tokens = teacher.tokenizer(["small cat", "large dog"], padding=True, return_tensors="pt")
    with torch.no_grad():
        theirs = model(**tokens, pixel_values=pictures / 127.5 - 1)
    torch.testing.assert_close(clip.embed_pictures(pictures), theirs.image_embeds, atol=1e-5, rtol=1e-4)
    ours = clip.embed_texts(["small cat", "large dog"])
    torch.testing.assert_close(ours, theirs.text_embeds, atol=1e-5, rtol=1e-4)


def test_pictures_of_another_size_are_resized(teacher: Teacher) -> None:
    clip = load_evaluation_clip(teacher)
    flat = torch.full((1, 3, 32, 32), 77, dtype=torch.uint8)
    larger = torch.full((1, 3, 64, 64), 77, dtype=torch.uint8)
    torch.testing.assert_close(clip.embed_pictures(larger), clip.embed_pictures(flat))


def test_nearest_references_count_only_captions_that_ask_for_one() -> None:
    references = References(torch.eye(8), {"zero": 0, "one": 1})
    pictures = torch.zeros(3, 8)
    pictures[0, 0] = 1  # looks like its own reference
    pictures[1] = torch.tensor([0.9, 0.1, 0.2, 0.3, 0.05, 0, 0, 0])  # three others are nearer
    shares = references.nearest_shares(pictures, ["zero", "one", "neither"])
    assert shares == {"nearest_pictures": 2, "nearest_top1": 0.5, "nearest_top5": 1.0}
    assert references.nearest_shares(pictures, ["neither"] * 3) == {}


def test_captions_are_chosen_equally_often() -> None:
    chosen = choose_captions(np.array([3, 5, 9]), 8, seed=0)
    assert sorted(np.unique(chosen, return_counts=True)[1].tolist()) == [2, 3, 3]
    assert len(set(choose_captions(np.arange(50), 20, seed=0).tolist())) == 20


def test_multiply_accumulates_of_a_layer_by_hand() -> None:
    """A wider condition costs what its two projections in each cross-attention cost."""
    config = {
        "sample_size": 8,
        "block_out_channels": [8],
        "down_block_types": ["CrossAttnDownBlock2D"],
        "up_block_types": ["CrossAttnUpBlock2D"],
        "mid_block_type": None,
        "layers_per_block": 1,
        "norm_num_groups": 4,
        "attention_head_dim": 2,
        "cross_attention_dim": 16,
    }
    attentions, key_and_value = 1 + 2, 2
    difference = count_multiply_accumulates(config, 10) - count_multiply_accumulates(config, 7)
    assert difference == 3 * attentions * key_and_value * 16 * 8


def test_a_grid_holds_its_pictures_in_their_places() -> None:
    red, blue = (torch.zeros(3, 3, 16, 16, dtype=torch.uint8) for _ in range(2))
    red[:, 0], blue[:, 2] = 255, 255
    captions = ["one", "two", "a caption " * 20]
    grid = draw_grid([("teacher", red), ("student", blue)], captions, title="title")
    top = grid.height - 2 * (CELL + GAP) - (grid.height - draw_grid([], captions, "title").height)
    assert grid.width == LABEL_WIDTH + 3 * (CELL + GAP)
    colours = {grid.getpixel((LABEL_WIDTH + 2 * (CELL + GAP) + 5, y)) for y in range(grid.height)}
    assert {(255, 0, 0), (0, 0, 255)} <= colours
    assert top < grid.height
