"""Bootstrap intervals against the normal theory, and how often they hold what they should."""

import numpy as np
import pytest

from core.metrics.bootstrap import bootstrap_interval
from core.metrics.frechet import frechet_distance


def test_the_interval_of_a_mean_is_that_of_its_standard_error() -> None:
    values = np.random.default_rng(0).normal(size=400)
    low, high = bootstrap_interval(lambda rows: values[rows].mean(), 400, resamples=4_000, seed=0)
    error = values.std() / np.sqrt(400)
    assert low == pytest.approx(values.mean() - 1.96 * error, abs=0.1 * error)
    assert high == pytest.approx(values.mean() + 1.96 * error, abs=0.1 * error)


def test_a_constant_has_no_width_and_a_seed_repeats_itself() -> None:
    assert bootstrap_interval(lambda rows: 3.0, 10, resamples=20, seed=0) == (3.0, 3.0)
    values = np.arange(10.0)
    once, again, other = (
        bootstrap_interval(lambda rows: values[rows].mean(), 10, resamples=50, seed=seed)
        for seed in (0, 0, 1)
    )
    assert once == again != other


def test_intervals_of_a_distance_hold_its_expectation_about_as_often_as_they_say() -> None:
    """The distance of two finite samples is above zero on average, and so must the intervals lie."""
    rng = np.random.default_rng(3)

    def measure() -> tuple[float, tuple[float, float]]:
        first, second = rng.normal(size=(2, 40, 3))
        return frechet_distance(first, second), bootstrap_interval(
            lambda rows: frechet_distance(first[rows], second[rows]), 40, resamples=60, seed=0
        )

    values, intervals = zip(*(measure() for _ in range(60)), strict=True)
    expected = np.mean(values)
    held = np.mean([low <= expected <= high for low, high in intervals])
    assert expected > 0.05
    assert held > 0.75
