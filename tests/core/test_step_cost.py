"""Passes per sample, for every option; that the objectives make as many is tested beside them."""

import pytest

from core.few_step_spec import FewStepSpec
from core.method_spec import FeatureMatchingSpec, MethodSpec
from core.step_cost import training_sample_cost, transfer_costs


@pytest.mark.parametrize(
    ("states", "direction_weight", "passes", "at_once"), [(1, 0, 1, 1), (4, 0, 4, 1), (3, 0.5, 6, 2)]
)
def test_every_state_takes_a_pass_and_a_direction_doubles_it(
    states: int, direction_weight: float, passes: int, at_once: int
) -> None:
    features = FeatureMatchingSpec(direction_weight=direction_weight)
    cost = training_sample_cost(MethodSpec(noise_matching_steps=states, features=features))
    assert (cost.teacher, cost.guide, cost.student, cost.student_at_once) == (passes, 0, passes, at_once)


def test_cross_attentions_and_the_task_are_free() -> None:
    rich = MethodSpec(task_weight=1, features=FeatureMatchingSpec(cross_attention=True))
    assert training_sample_cost(rich) == training_sample_cost(MethodSpec())


def test_a_transfer_costs_its_rounds() -> None:
    few_step = FewStepSpec(steps=5, start_steps=20, training_steps=70)
    folding, *halving = transfer_costs(few_step)
    assert (folding.steps, folding.sample.teacher, folding.sample.guide) == (70, 2, 0)
    assert [(cost.steps, cost.sample.teacher, cost.sample.guide) for cost in halving] == [(70, 0, 2)] * 2
    assert transfer_costs(None) == []
