"""How far a score would move if other pictures had been drawn: intervals by resampling the pictures.

Axes: B resamples, N samples.

References
----------
Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13.
"""

from collections.abc import Callable

import numpy as np

CONFIDENCE = 0.95
RESAMPLES_AT_ONCE = 256

Statistic = Callable[[np.ndarray], np.ndarray]
"""From how often each of N samples is taken, BN, to the values of B resamples."""


def bootstrap_interval(
    statistic: Statistic, count: int, resamples: int, seed: int, confidence: float = CONFIDENCE
) -> tuple[float, float]:
    """Return the interval around a statistic's value over all samples.

    A distance between two sets is biased upwards when samples repeat, as they do in a resample. So the
    resampled values are moved to have their mean at the value itself: the interval is for the score that as
    many other samples would get, not for the limit of infinitely many.

    Parameters
    ----------
    statistic
        What is resampled.
    count
        How many samples there are.
    resamples
        How many times to resample.
    seed
        Two statistics with one seed and count are computed from the same resamples.
    confidence
        Share of repetitions of the whole measurement whose interval should hold the expected score.
    """
    rng = np.random.default_rng(seed)
    sizes = [min(RESAMPLES_AT_ONCE, resamples - done) for done in range(0, resamples, RESAMPLES_AT_ONCE)]
    values = np.concatenate([statistic(_resample(rng, size, count)) for size in sizes])
    low, high = np.quantile(values - values.mean(), [(1 - confidence) / 2, (1 + confidence) / 2])
    value = statistic(np.ones((1, count), np.int64))[0]
    return float(value + low), float(value + high)


def _resample(rng: np.random.Generator, resamples: int, count: int) -> np.ndarray:
    """Return how often each sample is taken, BN, when as many are taken as there are."""
    taken = (rng.integers(count, size=count) for _ in range(resamples))
    return np.stack([np.bincount(rows, minlength=count) for rows in taken])
