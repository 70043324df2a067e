"""A loss that explodes: what counts as one, the way back, and that a killed run goes the same way."""

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel

from core.batches import Batch, BatchSource
from core.checkpoints import checkpoint_guard, complete_checkpoints
from core.divergence import FEWEST, REMEMBERED, DivergenceGuard, Report
from core.errors import DivergedError
from core.events import EventWriter, Progress
from core.few_step import begin_round
from core.loop import Course, run_course
from core.spec import TrainingSpec
from core.stopping import Stopped, StopRequest
from core.taps import TappedUNet
from core.teacher import Teacher
from core.training_step import TrainingState

RATE = 2.0**-10
FIRST, LAST = 12, 21  # checkpoints come at steps 16, 20 and 21


def judged(losses: Sequence[float]) -> DivergenceGuard:
    guard = DivergenceGuard()
    for step, loss in enumerate(losses):
        assert guard.judge(step, {"loss": loss}) is None
    return guard


def test_a_loss_far_above_the_median_is_an_explosion_and_one_bad_report_is_none() -> None:
    steady = judged([1.0, 1.1, 0.9, 1.0] * 5)
    assert steady.judge(20, {"loss": 9.0}) is None, "a bad batch"
    assert steady.judge(21, {"loss": 1.0}) is None
    trouble = steady.judge(22, {"loss": 11.0})
    assert trouble is not None
    assert "exploded at step 22: it is 11" in trouble


def test_the_first_reports_may_be_anything_finite() -> None:
    start = judged([1e-6] * (FEWEST - 1))
    assert start.judge(FEWEST, {"loss": 1e9}) is None


def test_a_steep_start_and_noise_of_decades_are_no_explosion() -> None:
    """A log-normal loss of 1 standard deviation reaches 50 times its median once in 20,000 reports."""
    noise = torch.randn(5_000, generator=torch.Generator().manual_seed(0)).tolist()
    judged([1_000 * math.exp(-step / 10) + math.exp(value) for step, value in enumerate(noise)])


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", ["loss", "gradient_norm"])
def test_what_is_not_finite_diverges_from_the_first_report_on(name: str, value: float) -> None:
    guard = DivergenceGuard()
    trouble = guard.judge(3, {"loss": 1.0, "gradient_norm": 1.0} | {name: value})
    assert trouble == "the loss is no longer a finite number at step 3"
    assert guard.reports == [Report(3, None if name == "loss" else 1.0)]


def test_losses_of_zero_are_judged_too() -> None:
    assert judged([0.0] * 20).judge(20, {"loss": 1.0}) is not None


def test_a_guard_remembers_the_latest_reports_through_json() -> None:
    guard = judged([1.0] * (REMEMBERED + 7))
    guard.go_back(abandoned=[Report(3, None)])
    assert [report.step for report in guard.reports] == list(range(7, REMEMBERED + 7))
    assert DivergenceGuard.from_json(json.loads(json.dumps(guard.to_json()))) == guard


class Climb:
    """Takes one weight up by the learning rate each step; past a height the loss is what `beyond` says.

    Adam's steps along an ever equal gradient are as long as its rate.
    """

    def __init__(self, height: float, beyond: float) -> None:
        self.height, self.beyond = height, beyond

    parts = passes = 1

    def __call__(self, student: TappedUNet, batch: Batch) -> Iterator[dict[str, torch.Tensor]]:
        climbed = student.unet.conv_in.bias[0]
        loss = 1 - climbed
        yield {"loss": loss if climbed.item() < self.height else loss * self.beyond}


class Killed(Exception):  # noqa: N818 - not an error of ours
    """Stands for the end of the process between two steps."""


def run(
    teacher: Teacher,
    batches: BatchSource,
    folder: Path,
    objective: Climb,
    *,
    ends_after: int | None = None,
    on_visit: int = 1,
    stop: StopRequest | None = None,
    **training: object,
) -> tuple[TrainingState, list[dict]]:
    """Run a course of nine steps in a folder, from wherever the folder says.

    Parameters
    ----------
    ends_after
        Kill the run right after this step, the `on_visit`-th time that it is made; or ask it to stop then.
    """
    visits = []

    def end(average: UNet2DConditionModel, step: int) -> None:
        visits.append(step)
        if step == ends_after and visits.count(step) == on_visit:
            if stop is None:
                raise Killed
            stop.requested = True

    spec = TrainingSpec.model_validate(
        {
            "steps": LAST - FIRST,
            "batch_size": 2,
            "learning_rate": RATE,
            "weight_decay": 0,
            "log_every": 1,
            "checkpoint_every": 4,
            "sample_every": 1,
        }
        | training
    )
    student = UNet2DConditionModel.from_config(teacher.unet.config)
    student.load_state_dict(teacher.unet.state_dict())
    with torch.no_grad():
        student.conv_in.bias.zero_()
    state = begin_round(student, None, spec, FIRST)
    newest = complete_checkpoints(folder / "checkpoints")
    if newest:
        state.load(newest[-1])
    events = EventWriter(folder / "events.jsonl")
    try:
        progress = Progress(events, "few_step", "steps", LAST - FIRST, done=state.step - FIRST)
        course = Course("few_step", FIRST, spec, batches, progress, end)
        run_course(course, state, objective, folder / "checkpoints", events, stop or StopRequest())
    finally:
        events.close()
    return state, [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]


def weights_of(state: TrainingState) -> dict[str, torch.Tensor]:
    return {
        f"{name}.{key}": weight.clone()
        for name, module in state.modules.items()
        for key, weight in module.state_dict().items()
    }


def climbed(state: TrainingState) -> float:
    return state.student.unet.conv_in.bias[0].item() / RATE


def assert_same(ours: TrainingState, theirs: TrainingState) -> None:
    ours_by_name, theirs_by_name = weights_of(ours), weights_of(theirs)
    assert all(torch.equal(ours_by_name[name], theirs_by_name[name]) for name in theirs_by_name)


# The eighth step sees what seven whole ones lead to; four whole ones and five of half the length stay below.
HEIGHT = 6.7 * RATE


@pytest.mark.parametrize("beyond", [math.nan, math.inf])
def test_a_diverged_course_goes_back_to_its_checkpoint_with_half_the_rate(
    teacher: Teacher, batches: BatchSource, tmp_path: Path, beyond: float
) -> None:
    state, events = run(teacher, batches, tmp_path, Climb(HEIGHT, beyond))
    assert state.step == LAST
    assert climbed(state) == pytest.approx(6.5, rel=1e-3)
    assert [event["message"] for event in events if event["type"] == "warning"] == [
        "the loss is no longer a finite number at step 20: going back to step 16, "
        "with 0.5 times the learning rate"
    ]
    metrics = [(event["step"], event["values"]) for event in events if event["type"] == "metrics"]
    assert [step for step, _ in metrics] == [*range(13, 21), *range(17, 22)]
    assert [values["learning_rate"] for _, values in metrics] == [RATE] * 8 + [RATE / 2] * 5
    assert metrics[7][1]["loss"] is None
    assert [event["done"] for event in events if event["type"] == "progress"][-1] == LAST - FIRST
    checkpoints = complete_checkpoints(tmp_path / "checkpoints")
    assert [checkpoint_guard(path).rate_factor for path in checkpoints] == [0.5, 0.5]
    assert not (tmp_path / "divergence.json").exists()


def test_an_explosion_is_found_among_losses_that_are_finite(
    teacher: Teacher, batches: BatchSource, tmp_path: Path
) -> None:
    """Steps 33 and 34 explode and are reported together; from step 30 on the second try is slow enough."""
    objective = Climb(19.7 * RATE, 1e3)
    state, events = run(teacher, batches, tmp_path, objective, steps=22, checkpoint_every=10, log_every=2)
    assert climbed(state) == pytest.approx(18 + 4 / 2, rel=1e-3)
    (warning,) = (event["message"] for event in events if event["type"] == "warning")
    assert warning.startswith("the loss has exploded at step 34: it is ")
    assert "going back to step 30" in warning


def test_a_course_without_a_checkpoint_goes_back_to_its_start(
    teacher: Teacher, batches: BatchSource, tmp_path: Path
) -> None:
    objective = Climb(5.5 * RATE, math.nan)
    state, events = run(teacher, batches, tmp_path / "back", objective, checkpoint_every=100)
    (warning,) = (event["message"] for event in events if event["type"] == "warning")
    assert "going back to step 12" in warning
    slow, _ = run(
        teacher, batches, tmp_path / "slow", objective, checkpoint_every=100, learning_rate=RATE / 2
    )
    assert_same(state, slow)


@pytest.mark.parametrize(
    ("ends_after", "on_visit"),
    [(18, 1), (17, 2), (19, 2), (21, 1)],
    ids=["before", "right after going back", "before the next checkpoint", "after it"],
)
def test_a_run_killed_around_the_way_back_ends_as_one_that_was_not(
    teacher: Teacher, batches: BatchSource, tmp_path: Path, ends_after: int, on_visit: int
) -> None:
    objective, torn = Climb(HEIGHT, math.nan), tmp_path / "torn"
    whole, _ = run(teacher, batches, tmp_path / "whole", objective)
    with pytest.raises(Killed):
        run(teacher, batches, torn, objective, ends_after=ends_after, on_visit=on_visit)
    resumed, _ = run(teacher, batches, torn, objective)
    assert_same(resumed, whole)
    assert resumed.guard == whole.guard


def test_a_run_stopped_after_the_way_back_ends_as_one_that_was_not(
    teacher: Teacher, batches: BatchSource, tmp_path: Path
) -> None:
    objective, torn = Climb(HEIGHT, math.nan), tmp_path / "torn"
    whole, _ = run(teacher, batches, tmp_path / "whole", objective)
    with pytest.raises(Stopped):
        run(teacher, batches, torn, objective, ends_after=17, on_visit=2, stop=StopRequest())
    assert complete_checkpoints(torn / "checkpoints")[-1].name == "step-00000018"
    resumed, _ = run(teacher, batches, torn, objective)
    assert_same(resumed, whole)


def test_a_course_that_diverges_again_fails_with_the_losses_of_both_tries(
    teacher: Teacher, batches: BatchSource, tmp_path: Path
) -> None:
    with pytest.raises(DivergedError) as caught:
        run(teacher, batches, tmp_path, Climb(5.2 * RATE, math.nan))
    error = caught.value
    assert error.reason == "diverged"
    assert "no longer a finite number at step 20" in error.message
    assert "gone back once before, at step 19, and had gone on with 0.5 times" in error.message
    assert error.message.endswith("step 20: not finite")
    assert "few_step.learning_rate" in error.hint
    curve = json.loads((tmp_path / "divergence.json").read_text())
    assert curve["rate_factor"] == 0.5
    for tried, last in (("abandoned", 19), ("reports", 20)):
        assert [report["step"] for report in curve[tried]] == list(range(13, last + 1))
        assert [report["loss"] is None for report in curve[tried]] == [False] * (last - 13) + [True]
