"""Scores on the way: the same pictures every time, few of them, and none lost or made twice by a stop."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from diffusers import UNet2DConditionModel

from core.artist import Artist
from core.batches import BatchSource
from core.captions import CaptionSet
from core.checkpoints import checkpoint_scores, newest_checkpoint
from core.events import EventWriter
from core.few_step import transfer
from core.loop import train
from core.metrics.frechet import frechet_distance
from core.picture_sets import PictureSet
from core.spec import DistillationSpec, EvaluationSpec, derive_student
from core.stopping import Stopped, StopRequest
from core.student_weights import build_student
from core.students import student_rule
from core.teacher import Teacher
from core.training_scores import TrainingScorer

SAMPLES = 6


class Pictures:
    """Counts what each U-Net draws, and with how many steps, and may ask for a stop while it does."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.drawn: list[tuple[UNet2DConditionModel, int, tuple[str, ...], tuple[int, ...]]] = []
        self.at_each = lambda: None
        draw = Artist.draw

        def drawing(artist: Artist, texts: list[str], seeds: list[int]) -> Any:
            self.drawn.append((artist.unet, artist.evaluation.steps, tuple(texts), tuple(seeds)))
            self.at_each()
            return draw(artist, texts, seeds)

        monkeypatch.setattr(Artist, "draw", drawing)

    def by(self, unet: UNet2DConditionModel) -> list[tuple[Any, ...]]:
        return [(steps, texts, seeds) for who, steps, texts, seeds in self.drawn if who is unet]


@pytest.fixture
def spec(make_spec: Callable[..., DistillationSpec]) -> DistillationSpec:
    evaluation = {"score_every": 2, "score_samples": SAMPLES, "steps": 2, "guidance_scale": 2.0}
    return make_spec(evaluation=evaluation | {"samples": 4, "batch_size": 4, "bootstrap_resamples": 10})


@pytest.fixture
def make_scorer(
    teacher: Teacher, captions: CaptionSet, spec: DistillationSpec, events: EventWriter, tmp_path: Path
) -> Callable[[StopRequest], TrainingScorer]:
    return lambda stop: TrainingScorer(teacher, captions, spec, tmp_path / "cache", events, stop)


def student_of(teacher: Teacher) -> UNet2DConditionModel:
    config = derive_student(teacher.info.unet_config, "b-tiny")
    return build_student(config, student_rule("b-tiny"), teacher.unet, seed=0)


def told(tmp_path: Path) -> list[dict[str, Any]]:
    lines = (tmp_path / "events.jsonl").read_text().splitlines()
    return [event for event in map(json.loads, lines) if event["type"] == "metrics"]


def test_a_score_is_a_distance_for_each_split_beside_the_teachers_own(
    teacher: Teacher,
    captions: CaptionSet,
    spec: DistillationSpec,
    make_scorer: Callable[..., TrainingScorer],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scorer, student, pictures = make_scorer(StopRequest()), student_of(teacher), Pictures(monkeypatch)
    sets: dict[UNet2DConditionModel, list[PictureSet]] = {}
    judgements = PictureSet.judgements
    features = {}

    def judging(self: PictureSet, *arguments: Any) -> Any:
        judged = judgements(self, *arguments)
        sets.setdefault(self.artist.unet, []).append(self)
        features[id(self)] = judged["features"]
        return judged

    monkeypatch.setattr(PictureSet, "judgements", judging)
    score = scorer.score(spec.evaluation, student, 2)
    assert score is not None
    assert [(event["step"], event["values"]) for event in told(tmp_path)] == [(2, score)]
    assert set(score) == {
        f"frechet_distance_{split}{suffix}"
        for split in captions.splits
        if captions.splits[split]
        for suffix in ("", "_low", "_high", "_teacher")
    }
    ours = {one.texts[0]: features[id(one)] for one in sets[student]}
    references = sets[teacher.unet][::2]
    for split, reference in zip(("drawn", "text_only"), references, strict=True):
        expected = frechet_distance(ours[reference.texts[0]], features[id(reference)])
        assert score[f"frechet_distance_{split}"] == pytest.approx(expected)
        assert score[f"frechet_distance_{split}_low"] <= expected <= score[f"frechet_distance_{split}_high"]
        assert len(reference.texts) == SAMPLES
    first_round = pictures.by(student)
    assert scorer.score(spec.evaluation, student, 4) == score
    assert pictures.by(student) == 2 * first_round
    assert len(pictures.by(teacher.unet)) == 2 * len(first_round), "the teacher's are judged once"


def test_a_score_that_is_stopped_is_none(
    teacher: Teacher,
    spec: DistillationSpec,
    make_scorer: Callable[..., TrainingScorer],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stop, pictures = StopRequest(), Pictures(monkeypatch)
    pictures.at_each = lambda: setattr(stop, "requested", True)
    assert make_scorer(stop).score(spec.evaluation, student_of(teacher), 2) is None
    assert len(pictures.drawn) == 1
    assert told(tmp_path) == []


class Scores:
    """Scores by a made-up figure; asks for a stop when, and perhaps before, it has scored."""

    def __init__(self) -> None:
        self.stop = StopRequest()
        self.made: list[int] = []
        self.drawings: list[EvaluationSpec] = []
        self.stop_before: set[int] = set()

    def score(
        self, drawing: EvaluationSpec, average: UNet2DConditionModel, step: int
    ) -> dict[str, float] | None:
        if step in self.stop_before:
            self.stop_before.remove(step)
            self.stop.requested = True
            return None
        self.made.append(step)
        self.drawings.append(drawing)
        return {"distance": step + 0.5}


def test_a_job_that_is_stopped_while_it_scores_loses_no_score_and_makes_none_twice(
    teacher: Teacher,
    batches: BatchSource,
    make_spec: Callable[..., DistillationSpec],
    events: EventWriter,
    tmp_path: Path,
) -> None:
    """Stops come in the middle of the training, at its very end, and at the ends of two rounds."""
    spec = make_spec(
        training={"steps": 4, "batch_size": 2, "learning_rate": 1e-3, "checkpoint_every": 3},
        few_step={"steps": 2, "start_steps": 8, "guidance_scale": 3, "training_steps": 2},
        evaluation={"score_every": 2, "steps": 2},
    )
    checkpoints = tmp_path / "checkpoints"

    def run(scores: Scores) -> None:
        def draw_nothing(*_: Any) -> None:
            pass

        student = train(
            teacher,
            student_of(teacher),
            batches,
            spec,
            checkpoints,
            draw_nothing,
            events,
            scores.stop,
            score=lambda average, step: scores.score(spec.evaluation, average, step),
        )
        transfer(
            teacher,
            student,
            batches,
            spec,
            spec.few_step,
            checkpoints,
            draw_nothing,
            events,
            scores.stop,
            score=scores.score,
        )

    scores = Scores()
    scores.stop_before = {2, 4, 6, 10}
    for _ in range(4):
        with pytest.raises(Stopped):
            run(scores)
        scores.stop.requested = False
    run(scores)
    run(scores)  # there is nothing left to do
    assert scores.made == [2, 4, 6, 8, 10]
    assert [(each.steps, each.guidance_scale) for each in scores.drawings] == [
        *2 * [(2, spec.evaluation.guidance_scale)],
        (2, 1),
        (4, 1),
        (2, 1),
    ]
    assert checkpoint_scores(newest_checkpoint(checkpoints)) == {
        step: {"distance": step + 0.5} for step in scores.made
    }


def test_scores_after_the_step_that_a_training_goes_back_to_are_made_again(
    teacher: Teacher,
    batches: BatchSource,
    make_spec: Callable[..., DistillationSpec],
    events: EventWriter,
    tmp_path: Path,
) -> None:
    training = {"steps": 4, "batch_size": 2, "checkpoint_every": 3, "learning_rate": 1e-3}
    spec = make_spec(training=training, evaluation={"score_every": 2})
    scores, average = Scores(), []

    def score(weights: UNet2DConditionModel, step: int) -> dict[str, float] | None:
        average.append(weights.conv_in.weight.clone())
        if step == 4 and len(average) == 2:  # the process dies, and its last checkpoint is of step 3
            raise KeyboardInterrupt
        return scores.score(spec.evaluation, weights, step)

    def run() -> None:
        folder, student = tmp_path / "checkpoints", student_of(teacher)
        train(teacher, student, batches, spec, folder, lambda *_: None, events, scores.stop, score=score)

    with pytest.raises(KeyboardInterrupt):
        run()
    run()
    assert scores.made == [2, 4]
    assert average[1].equal(average[2])
