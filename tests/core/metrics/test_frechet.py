"""The Fréchet distance against closed forms and against the square root of a matrix."""

import numpy as np
import pytest
import scipy.linalg

from core.metrics.frechet import frechet_distance


def by_matrix_root(first: np.ndarray, second: np.ndarray) -> float:
    covariances = [np.cov(features, rowvar=False) for features in (first, second)]
    gap = first.mean(axis=0) - second.mean(axis=0)
    root = scipy.linalg.sqrtm(covariances[0] @ covariances[1]).real
    return float(gap @ gap + np.trace(covariances[0] + covariances[1] - 2 * root))


def whitened(rng: np.random.Generator, samples: int, width: int) -> np.ndarray:
    """Return samples whose mean is exactly 0 and whose covariance is exactly the identity."""
    values = rng.normal(size=(samples, width))
    values -= values.mean(axis=0)
    factor = np.linalg.cholesky(np.cov(values, rowvar=False))
    return np.linalg.solve(factor, values.T).T


@pytest.mark.parametrize(("samples", "width"), [(200, 8), (64, 16), (500, 3)])
def test_equals_the_formula_by_matrix_root(samples: int, width: int) -> None:
    rng = np.random.default_rng(samples)
    first = rng.normal(size=(samples, width)) @ rng.normal(size=(width, width))
    second = rng.normal(size=(samples + 5, width)) @ rng.normal(size=(width, width)) + 1
    assert frechet_distance(first, second) == pytest.approx(by_matrix_root(first, second), rel=1e-8)


def test_gaussians_of_one_covariance_are_apart_by_their_means() -> None:
    features = whitened(np.random.default_rng(0), 300, 5)
    shift = np.array([1.0, 2.0, 0, 0, -2.0])
    assert frechet_distance(features, features + shift) == pytest.approx(9.0)


def test_concentric_gaussians_are_apart_by_their_widths() -> None:
    rng = np.random.default_rng(1)
    scales = np.array([3.0, 0.5, 1.0])
    distance = frechet_distance(whitened(rng, 100, 3), whitened(rng, 80, 3) * scales)
    assert distance == pytest.approx(((scales - 1) ** 2).sum())


def test_fewer_samples_than_dimensions_are_no_trouble() -> None:
    rng = np.random.default_rng(2)
    few = rng.normal(size=(6, 40))
    assert frechet_distance(few, few) == pytest.approx(0, abs=1e-10)
    assert frechet_distance(few, rng.normal(size=(9, 40))) > 0
