"""Kernel distances against sums over all pairs, written out, and against closed forms."""

from collections.abc import Callable
from itertools import permutations

import numpy as np
import pytest

from core.metrics import kernel
from core.metrics.kernel import clip_mmd, kernel_inception_distance, resampled_cmmd, resampled_kid


def cubic(x: np.ndarray, y: np.ndarray) -> float:
    return (x @ y / len(x) + 1) ** 3


def kid_by_pairs(first: np.ndarray, second: np.ndarray) -> float:
    within = [np.mean([cubic(x, y) for x, y in permutations(set_, 2)]) for set_ in (first, second)]
    return sum(within) - 2 * np.mean([cubic(x, y) for x in first for y in second])


def cmmd_by_pairs(first: np.ndarray, second: np.ndarray) -> float:
    first, second = ([x / np.sqrt(x @ x) for x in set_] for set_ in (first, second))

    def mean(xs: list[np.ndarray], ys: list[np.ndarray]) -> float:
        return float(np.mean([np.exp(-((x - y) @ (x - y)) / 200) for x in xs for y in ys]))

    return 1_000 * (mean(first, first) + mean(second, second) - 2 * mean(first, second))


@pytest.fixture
def sets() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(12, 5)), rng.normal(size=(9, 5)) + 0.7


def test_kid_equals_the_means_over_all_pairs(sets: tuple[np.ndarray, np.ndarray]) -> None:
    assert kernel_inception_distance(*sets) == pytest.approx(kid_by_pairs(*sets), rel=1e-10)


def test_cmmd_equals_the_means_over_all_pairs(sets: tuple[np.ndarray, np.ndarray]) -> None:
    assert clip_mmd(*sets) == pytest.approx(cmmd_by_pairs(*sets), rel=1e-8)


def test_blocks_of_rows_change_nothing(
    sets: tuple[np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = kernel_inception_distance(*sets), clip_mmd(*sets)
    monkeypatch.setattr(kernel, "ROWS_AT_ONCE", 4)
    assert (kernel_inception_distance(*sets), clip_mmd(*sets)) == pytest.approx(whole)


def test_kid_of_samples_of_one_distribution_is_zero_on_average() -> None:
    rng = np.random.default_rng(1)
    draws = [
        kernel_inception_distance(rng.normal(size=(10, 4)), rng.normal(size=(10, 4))) for _ in range(800)
    ]
    assert abs(np.mean(draws)) < 3 * np.std(draws) / np.sqrt(len(draws))


def test_cmmd_of_two_opposite_points() -> None:
    """Unit vectors that point in opposite directions are 2 apart, whatever their lengths were."""
    point = np.array([[3.0, 4.0]])
    assert clip_mmd(np.repeat(point, 3, axis=0), np.repeat(-7 * point, 5, axis=0)) == pytest.approx(
        2_000 * (1 - np.exp(-4 / 200))
    )
    assert clip_mmd(point, point) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(
    ("resampled", "plain"), [(resampled_kid, kernel_inception_distance), (resampled_cmmd, clip_mmd)]
)
def test_a_resample_is_the_distance_of_the_samples_that_it_takes(
    resampled: Callable[..., np.ndarray], plain: Callable[..., float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernel, "ROWS_AT_ONCE", 4)
    rng = np.random.default_rng(2)
    first, second = rng.normal(size=(2, 11, 3))
    times_BN = np.stack([np.bincount(rng.integers(11, size=11), minlength=11) for _ in range(5)])
    rows = [np.repeat(np.arange(11), times_N) for times_N in times_BN]
    expected = [plain(first[taken], second[taken]) for taken in rows]
    np.testing.assert_allclose(resampled(first, second, times_BN), expected, rtol=1e-9)
