"""Budgets buy the largest student within them, out of all that the family's rules offer."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.cost import count_multiply_accumulates, count_parameters
from core.errors import InvalidStudentError
from core.spec import ComputeBudget, ParameterBudget, WidthStudent, choose_student, derive_student
from core.student_choice import Candidate, list_candidates

SD14_PARAMETERS = {
    "b-base": 579_384_964,
    "c-base": 553_235_204,
    "b-small": 482_346_884,
    "c-small": 425_288_868,
    "b-tiny": 323_384_964,
    "c-tiny": 314_140_228,
    "c-micro": 219_789_284,
}


@pytest.fixture(scope="module")
def candidates(sd14_config: dict[str, Any]) -> list[Candidate]:
    return list_candidates(sd14_config)


def test_all_presets_and_all_other_widths_are_candidates(candidates: list[Candidate]) -> None:
    """The widths of Stable Diffusion 1.4 are the tenths; four of them are presets, and 1 is the teacher."""
    presets = {each.student: each.parameters for each in candidates if isinstance(each.student, str)}
    assert presets == SD14_PARAMETERS
    widths = [each.student.width for each in candidates if isinstance(each.student, WidthStudent)]
    assert widths == pytest.approx([0.9, 0.4, 0.3, 0.2, 0.1])


@pytest.mark.parametrize(
    ("budget", "chosen"),
    [
        (ParameterBudget(max_params=579_384_964), "b-base"),
        (ParameterBudget(max_params=579_384_963), "c-base"),
        (ParameterBudget(max_params=320_000_000), "c-tiny"),
        (ComputeBudget(max_macs=210_000_000_000), "c-small"),
        (ComputeBudget(max_macs=100_000_000_000), "c-micro"),
    ],
)
def test_the_largest_within_the_budget_is_chosen(
    budget: Any, chosen: str, sd14_config: dict[str, Any]
) -> None:
    choice = choose_student(sd14_config, budget)
    assert choice.student == chosen
    assert choice.config == derive_student(sd14_config, chosen)
    assert choice.describe()["name"] == chosen
    assert {"name": "b-small", "parameters": 482_346_884} in [
        {key: each[key] for key in ("name", "parameters")} for each in choice.describe()["candidates"]
    ]


@settings(max_examples=20, deadline=None)
@given(limit=st.integers(1, 10**8))
def test_a_budget_is_never_exceeded_and_never_left_unused(limit: int) -> None:
    config = {
        "sample_size": 8,
        "block_out_channels": [40, 80],
        "norm_num_groups": 4,
        "attention_head_dim": 2,
        "cross_attention_dim": 8,
        "layers_per_block": 2,
        "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
        "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
    }
    fitting = [each for each in list_candidates(config, 7) if each.multiply_accumulates <= limit]
    if not fitting:
        with pytest.raises(InvalidStudentError) as caught:
            choose_student(config, ComputeBudget(max_macs=limit), 7)
        assert caught.value.field == "student.max_macs"
        assert caught.value.allowed
        return
    choice = choose_student(config, ComputeBudget(max_macs=limit), 7)
    assert count_multiply_accumulates(choice.config, 7) <= limit
    assert count_parameters(choice.config) == max(each.parameters for each in fitting)


def test_a_student_that_is_named_has_no_alternatives(sd14_config: dict[str, Any]) -> None:
    choice = choose_student(sd14_config, "b-small")
    assert choice.describe() == {"name": "b-small"}
