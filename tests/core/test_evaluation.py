"""What is measured at the end, and the pictures of it."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel
from transformers import CLIPModel

from core import picture_sets
from core.artist import Artist
from core.captions import CaptionSet, prepare_captions
from core.cost import count_multiply_accumulates
from core.evaluation import Evaluation, evaluate, judge_pictures
from core.evaluation_clip import FOLDER_VARIABLE, load_evaluation_clip
from core.events import EventWriter
from core.grids import CELL, GAP, LABEL_WIDTH, draw_grid
from core.judges import load_judge
from core.picture_sets import teacher_pictures
from core.references import References
from core.spec import DistillationSpec, EvaluationSpec
from core.stopping import Stopped, StopRequest
from core.teacher import Teacher, load_teacher
from core.teacher_folder import read_teacher

EVALUATION = EvaluationSpec(
    samples=5, sampler="ddim", steps=2, guidance_scale=2, batch_size=2, bootstrap_resamples=20
)


@pytest.fixture
def captions(tmp_path: Path) -> CaptionSet:
    spec = {
        "teacher": "t",
        "captions": {"kind": "inline", "texts": ["small cat", "large cat", "small dog", "a cat on the moon"]},
        "drawn": {"texts": ["small cat"], "hold_out": ["dog"]},
    }
    return prepare_captions(DistillationSpec.model_validate(spec), tmp_path / "captions", [])


def student_of(teacher: Teacher, seed: int) -> Artist:
    """A model that draws in fewer steps and without guidance."""
    torch.manual_seed(seed)
    unet = UNet2DConditionModel.from_config(teacher.unet.config).eval()
    return Artist(teacher, unet, EVALUATION.model_copy(update={"steps": 1, "guidance_scale": 1.0}))


@pytest.fixture
def student(teacher: Teacher) -> Artist:
    return student_of(teacher, 1)


class Counting(StopRequest):
    """Counts the batches that are drawn, and asks to stop after some of them."""

    def __init__(self, allowed: int = 1_000) -> None:
        super().__init__()
        self.checked, self.allowed = 0, allowed

    def check(self) -> None:
        self.requested = self.checked == self.allowed
        super().check()
        self.checked += 1


def test_a_teacher_beside_itself_scores_the_same_in_all_splits(
    teacher: Teacher, captions: CaptionSet, events: EventWriter, tmp_path: Path
) -> None:
    artist = Artist(teacher, teacher.unet, EVALUATION)
    values = evaluate(
        Evaluation(artist, artist, captions, 0, tmp_path / "cache"),
        events,
        StopRequest(),
    )
    assert values["teacher"]["parameters"] == values["student"]["parameters"] == teacher.info.parameters
    assert values["teacher"]["milliseconds_per_picture"] > 0
    assert values["teacher"]["peak_memory_bytes"] == values["student"]["peak_memory_bytes"]
    for split in ("drawn", "text_only", "held_out"):
        assert values[split]["pictures"] == EVALUATION.samples
        assert values[split]["teacher"] == values[split]["student"]
        assert values[split]["intervals"]["teacher"] == values[split]["intervals"]["student"]
        assert values[split]["unet_calls"] == {"teacher": 4, "student": 4}
        assert values[split]["teacher"]["frechet_distance"] > 0
        assert -1 <= values[split]["teacher"]["clip_score"] <= 1
        for name, score in values[split]["teacher"].items():
            low, high = values[split]["intervals"]["teacher"][name]
            assert low <= score <= high, name
    assert "nearest_top1" in values["text_only"]["teacher"]
    json.dumps(values, allow_nan=False)


def test_each_model_is_measured_as_it_draws_and_at_further_steps(
    teacher: Teacher, student: Artist, captions: CaptionSet, events: EventWriter, tmp_path: Path
) -> None:
    evaluation = EVALUATION.model_copy(update={"more_steps": [1, 3], "bootstrap_resamples": 0})
    artist = Artist(teacher, teacher.unet, evaluation)
    values = judge_pictures(
        Evaluation(artist, student, captions, 0, tmp_path / "cache"),
        events,
        StopRequest(),
    )
    drawn = values["drawn"]
    assert drawn["unet_calls"] == {"teacher": 4, "student": 1}
    assert drawn["intervals"] == {"teacher": {}, "student": {}}
    assert set(drawn["by_steps"]) == {"1", "3"}
    assert drawn["by_steps"]["3"]["unet_calls"] == {"teacher": 6, "student": 3}
    assert drawn["by_steps"]["1"]["student"] == drawn["student"]
    assert drawn["by_steps"]["1"]["teacher"] != drawn["teacher"]
    last = json.loads((tmp_path / "events.jsonl").read_text().splitlines()[-1])
    assert last["done"] == last["total"] == 3 * (3 + 2 * 2 - 1) * EVALUATION.samples, (
        "one step is the student's"
    )


def kept_judgements(evaluation: Evaluation) -> dict[tuple[str, str, str], np.ndarray]:
    """What is kept of an evaluation by split, set and kind; nothing is drawn for it."""
    return {
        (split, name, kind): values
        for split in evaluation.captions.splits
        for name, one in evaluation.picture_sets(split).items()
        for kind, values in one.judgements(None, Counting(allowed=0)).items()
    }


def test_an_evaluation_that_was_stopped_within_a_set_goes_on_in_another_attempt(
    teacher: Teacher,
    captions: CaptionSet,
    events: EventWriter,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    artist, whole_run, rest = Artist(teacher, teacher.unet, EVALUATION), Counting(), Counting()
    uninterrupted = Evaluation(artist, student_of(teacher, 1), captions, 0, tmp_path / "whole")
    whole = judge_pictures(uninterrupted, events, whole_run)
    expected = kept_judgements(uninterrupted)
    monkeypatch.setattr(picture_sets, "SHARD_PICTURES", 3)  # rounded up to two batches of two
    stopped = Evaluation(artist, student_of(teacher, 1), captions, 0, tmp_path / "stopped")
    with pytest.raises(Stopped):
        judge_pictures(stopped, events, Counting(allowed=8))
    attempt = Evaluation(artist, student_of(teacher, 1), captions, 0, tmp_path / "stopped")
    resumed = judge_pictures(attempt, events, rest)
    assert whole_run.checked > 3 * 3 * 3  # splits, sets of pictures, batches; then while scoring
    assert rest.checked == whole_run.checked - 8  # two sets, and the first shard of the student's
    assert resumed == whole
    found = kept_judgements(attempt)
    assert found.keys() == expected.keys()
    assert all(np.array_equal(found[place], expected[place], equal_nan=True) for place in expected)


def test_what_was_drawn_is_judged_once_for_all_students_of_a_teacher_and_attempts_of_a_job(
    teacher: Teacher, captions: CaptionSet, events: EventWriter, tmp_path: Path
) -> None:
    artist, cache = Artist(teacher, teacher.unet, EVALUATION), tmp_path / "cache"
    runs = [Counting() for _ in range(4)]
    first, again, beside, _ = (
        judge_pictures(Evaluation(artist, student_of(teacher, weights), captions, seed, cache), events, run)
        for run, weights, seed in zip(runs, (1, 1, 2, 1), (0, 0, 0, 1), strict=True)
    )
    assert again == first
    assert beside["drawn"]["teacher"] == first["drawn"]["teacher"]
    assert beside["drawn"]["student"] != first["drawn"]["student"]
    batches = runs[0].checked - runs[1].checked
    assert batches == 3 * 3 * 3  # splits, sets of pictures, batches
    assert runs[2].checked == runs[0].checked - 3 * 2 * 3  # the teacher's sets alone
    assert runs[3].checked == runs[0].checked  # another seed, other pictures


def test_a_set_that_an_earlier_release_kept_whole_is_still_used(teacher: Teacher, tmp_path: Path) -> None:
    artist, texts, seeds = Artist(teacher, teacher.unet, EVALUATION), ["small cat"] * 5, range(5)
    drawn = teacher_pictures(artist, texts, seeds, tmp_path)
    judge = load_judge(teacher, EVALUATION)
    judged = drawn.judgements(judge, StopRequest())
    (shard,) = drawn.folder.glob("*.safetensors")
    shard.rename(drawn.folder / "judgements.safetensors")
    found = teacher_pictures(artist, texts, seeds, tmp_path)
    assert found.judged_before == 5
    kept = found.judgements(judge, Counting(allowed=0))
    assert all(np.array_equal(kept[name], judged[name], equal_nan=True) for name in judged)


@pytest.fixture
def teacher_without_clip(teachers_dir: Path, tmp_path: Path) -> Teacher:
    folder = tmp_path / "teacher"
    shutil.copytree(teachers_dir / "weights", folder)
    shutil.rmtree(folder / "evaluation_clip")
    return load_teacher(read_teacher(folder), torch.device("cpu"))


def test_the_machine_may_have_a_clip_for_teachers_without_one(
    teacher: Teacher, teacher_without_clip: Teacher, tmp_path: Path
) -> None:
    folder = tmp_path / "clip"
    shutil.copytree(teacher.info.path / "evaluation_clip", folder)
    teacher.tokenizer.save_pretrained(folder)
    assert load_evaluation_clip(teacher_without_clip, {}) is None
    clip = load_evaluation_clip(teacher_without_clip, {FOLDER_VARIABLE: str(folder)})
    own = load_evaluation_clip(teacher, {FOLDER_VARIABLE: "/absent"})
    assert clip.tokenizer is not teacher_without_clip.tokenizer
    torch.testing.assert_close(clip.embed_texts(["small cat"]), own.embed_texts(["small cat"]))


def test_without_a_clip_no_picture_is_judged(
    teacher_without_clip: Teacher, captions: CaptionSet, events: EventWriter, tmp_path: Path
) -> None:
    teacher = teacher_without_clip
    artist = Artist(teacher, teacher.unet, EVALUATION)
    assert (
        judge_pictures(
            Evaluation(artist, artist, captions, 0, tmp_path / "cache"),
            events,
            StopRequest(),
        )
        == {}
    )
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


def test_ranks_count_the_references_that_are_nearer() -> None:
    references = References(torch.eye(8), {"zero": 0, "one": 1})
    pictures = torch.zeros(3, 8)
    pictures[0, 0] = 1  # looks like its own reference
    pictures[1] = torch.tensor([0.9, 0.1, 0.2, 0.3, 0.05, 0, 0, 0])  # three others are nearer
    ranks = references.ranks(pictures, ["zero", "one", "neither"])
    assert ranks[:2].tolist() == [0, 3]
    assert ranks[2].isnan()
    assert references.ranks(pictures, ["neither"] * 3).isnan().all()


def test_probabilities_follow_the_scaled_similarities() -> None:
    references = References(torch.eye(3), {})
    picture = torch.tensor([[0.6, 0.8, 0.0]])
    expected = np.exp([6, 8, 0]) / np.exp([6, 8, 0]).sum()
    np.testing.assert_allclose(references.probabilities(picture, 10.0)[0], expected, rtol=1e-5)


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
