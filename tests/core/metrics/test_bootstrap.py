"""Bootstrap intervals against the normal theory, and how often they hold what they should."""

import numpy as np
import pytest

from core.metrics import bootstrap
from core.metrics.bootstrap import bootstrap_interval
from core.metrics.frechet import frechet_distance


def test_the_interval_of_a_mean_is_that_of_its_standard_error() -> None:
    values = np.random.default_rng(0).normal(size=400)
    low, high = bootstrap_interval(lambda times: times @ values / 400, 400, resamples=4_000, seed=0)
    error = values.std() / np.sqrt(400)
    assert low == pytest.approx(values.mean() - 1.96 * error, abs=0.1 * error)
    assert high == pytest.approx(values.mean() + 1.96 * error, abs=0.1 * error)


def test_a_constant_has_no_width_and_a_seed_repeats_itself() -> None:
    assert bootstrap_interval(lambda times: np.full(len(times), 3.0), 10, resamples=20, seed=0) == (3.0, 3.0)
    values = np.arange(10.0)
    once, again, other = (
        bootstrap_interval(lambda times: times @ values / 10, 10, resamples=50, seed=seed)
        for seed in (0, 0, 1)
    )
    assert once == again != other


def test_intervals_of_a_distance_hold_its_expectation_about_as_often_as_they_say() -> None:
    """The distance of two finite samples is above zero on average, and so must the intervals lie."""
    rng = np.random.default_rng(3)

    def measure() -> tuple[float, tuple[float, float]]:
        first, second = rng.normal(size=(2, 40, 3))

        def distances(times_BN: np.ndarray) -> np.ndarray:
            rows = [np.repeat(np.arange(40), times_N) for times_N in times_BN]
            return np.array([frechet_distance(first[taken], second[taken]) for taken in rows])

        return distances(np.ones((1, 40), int))[0], bootstrap_interval(distances, 40, resamples=60, seed=0)

    values, intervals = zip(*(measure() for _ in range(60)), strict=True)
    expected = np.mean(values)
    held = np.mean([low <= expected <= high for low, high in intervals])
    assert expected > 0.05
    assert held > 0.75


def test_every_resample_takes_as_many_samples_as_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap, "RESAMPLES_AT_ONCE", 8)
    taken = []

    def statistic(times_BN: np.ndarray) -> np.ndarray:
        taken.append(times_BN)
        return times_BN[:, 0]

    bootstrap_interval(statistic, 30, resamples=20, seed=0)
    assert [times_BN.shape for times_BN in taken] == [(8, 30), (8, 30), (4, 30), (1, 30)]
    assert all((times_BN.sum(axis=1) == 30).all() for times_BN in taken)
    assert (taken[-1] == 1).all()
