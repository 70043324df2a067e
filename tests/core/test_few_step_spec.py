"""Rounds of a transfer, and how a student draws after them."""

import math
from itertools import pairwise

import pytest
from diffusers import DDIMScheduler
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from core.few_step_spec import FewStepSpec, halving_rounds, oversteps
from core.spec import DistillationSpec


@pytest.mark.parametrize(
    ("start_steps", "steps", "rounds"),
    [(20, 12, [12]), (20, 5, [10, 5]), (50, 6, [30, 18, 11, 6]), (40, 5, [20, 10, 5]), (2, 1, [1])],
)
def test_rounds_by_hand(start_steps: int, steps: int, rounds: list[int]) -> None:
    assert halving_rounds(start_steps, steps) == rounds


@given(st.integers(2, 250).flatmap(lambda start: st.tuples(st.just(start), st.integers(1, start - 1))))
def test_no_round_more_than_halves_and_there_are_no_more_than_needed(pair: tuple[int, int]) -> None:
    start_steps, steps = pair
    rounds = [start_steps, *halving_rounds(start_steps, steps)]
    assert rounds[-1] == steps
    assert all(fewer < more <= 2 * fewer for more, fewer in pairwise(rounds))
    assert len(rounds) - 1 == math.ceil(math.log2(start_steps / steps))


def test_guidance_is_folded_in_first_unless_there_is_none() -> None:
    assert FewStepSpec(steps=5, start_steps=20).rounds == [None, 10, 5]
    assert FewStepSpec(steps=5, start_steps=20, guidance_scale=1).rounds == [10, 5]


@pytest.mark.parametrize("steps", [20, 21])
def test_a_transfer_to_as_many_steps_is_refused(steps: int) -> None:
    with pytest.raises(ValidationError, match="must be below start_steps 20"):
        FewStepSpec(steps=steps, start_steps=20)


def test_steps_of_which_diffusers_makes_one_too_many_are_known() -> None:
    scheduler = DDIMScheduler(timestep_spacing="trailing")

    def made(steps: int) -> int:
        scheduler.set_timesteps(steps)
        return len(scheduler.timesteps)

    assert [oversteps(steps) for steps in range(1, 300)] == [made(steps) > steps for steps in range(1, 300)]


@pytest.mark.parametrize(("start_steps", "steps"), [(62, 61), (122, 61), (100, 22)])
def test_a_round_of_which_diffusers_makes_a_step_too_many_is_refused(start_steps: int, steps: int) -> None:
    with pytest.raises(ValidationError, match="a round of this transfer leads to 61 sampler steps"):
        FewStepSpec(steps=steps, start_steps=start_steps)


def test_a_specification_from_before_there_were_transfers_stays_valid() -> None:
    spec = DistillationSpec.model_validate({"teacher": "t", "few_step": None})
    assert spec.student_drawing == spec.evaluation
    assert spec.optimiser_steps == spec.training.steps


def test_a_transferred_student_draws_in_its_few_steps_without_guidance() -> None:
    few_step = {"steps": 5, "start_steps": 20, "training_steps": 7}
    spec = DistillationSpec.model_validate(
        {"teacher": "t", "training": {"steps": 100}, "few_step": few_step, "evaluation": {"batch_size": 3}}
    )
    drawing = spec.student_drawing
    assert (drawing.sampler, drawing.steps, drawing.guidance_scale) == ("ddim-trailing", 5, 1)
    assert drawing.batch_size == 3
    folded = spec.round_drawing(None)
    assert (folded.sampler, folded.steps, folded.guidance_scale) == ("dpm-solver++", 20, 1)
    assert spec.optimiser_steps == 100 + 3 * 7
