"""Random conditioning: schedules against independent formulas and published means; what is replaced."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from core.conditioning import choose_captions, replacement_probability
from core.spec import MethodSpec, RandomConditioningSpec

T = 1_000
FORMULAS = {
    "exponential": lambda u: math.exp(-5 * (1 - u)),
    "sigmoid": lambda u: 1 / (1 + math.exp(-20 * (u - 0.7))),
    "two-sided": lambda u: math.exp(-5 * u) if u < 0.5 else math.exp(-5 * (1 - u)),
    "quadratic": lambda u: 1 - 4 * u * (1 - u),
    "constant": lambda u: 0.5,
    "off": lambda u: 0.0,
}
MEANS = {"exponential": 0.198, "sigmoid": 0.300, "two-sided": 0.367, "quadratic": 0.333}


@pytest.mark.parametrize("schedule", FORMULAS)
def test_schedules_follow_their_formulas(schedule: str) -> None:
    u = torch.arange(T, dtype=torch.float64) / T
    ours = replacement_probability(RandomConditioningSpec(schedule=schedule), u)
    expected = torch.tensor([FORMULAS[schedule](value) for value in u.tolist()], dtype=torch.float64)
    torch.testing.assert_close(ours, expected)


@pytest.mark.parametrize(("schedule", "mean"), MEANS.items())
def test_schedules_have_the_published_means(schedule: str, mean: float) -> None:
    u = torch.arange(T, dtype=torch.float64) / T
    ours = replacement_probability(RandomConditioningSpec(schedule=schedule), u).mean().item()
    assert ours == pytest.approx(mean, abs=6e-4)


@given(
    schedule=st.sampled_from(list(FORMULAS)),
    rate=st.floats(0.01, 100),
    probability=st.floats(0, 1),
    u=st.floats(0, 1),
)
def test_schedules_give_probabilities(schedule: str, rate: float, probability: float, u: float) -> None:
    spec = RandomConditioningSpec(schedule=schedule, rate=rate, probability=probability)
    assert 0 <= replacement_probability(spec, torch.tensor([u])).item() <= 1


def test_replacements_and_blanks_come_as_often_as_specified() -> None:
    B, count = 200_000, 1_000
    method = MethodSpec(random_conditioning=RandomConditioningSpec(schedule="constant", probability=0.3))
    own = torch.full((B,), 7)
    chosen = choose_captions(own, torch.rand(B), count, method, torch.Generator().manual_seed(0))
    blank, kept = chosen == count, chosen == 7
    assert blank.float().mean().item() == pytest.approx(0.1, abs=0.005)
    assert kept.float().mean().item() == pytest.approx(0.9 * 0.7, abs=0.005)
    replaced = chosen[~blank & ~kept]
    assert replaced.min() == 0
    assert replaced.max() == count - 1
    assert replaced.float().mean().item() == pytest.approx(count / 2, rel=0.02)


def test_clean_samples_keep_their_captions_and_noise_loses_them() -> None:
    B = 20_000
    method = MethodSpec(blank_probability=0)
    for u, share in ((0.0, math.exp(-5)), (1.0, 1.0)):
        own = torch.zeros(B, dtype=torch.long)
        generator = torch.Generator().manual_seed(1)
        chosen = choose_captions(own, torch.full((B,), u), 10_000, method, generator)
        assert (chosen != 0).float().mean().item() == pytest.approx(share, abs=0.005)


def test_off_and_no_blanks_changes_nothing() -> None:
    own = torch.arange(100)
    method = MethodSpec(random_conditioning=RandomConditioningSpec(schedule="off"), blank_probability=0)
    assert torch.equal(choose_captions(own, torch.rand(100), 100, method, torch.Generator()), own)
