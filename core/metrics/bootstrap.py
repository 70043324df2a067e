"""How far a score would move if other pictures had been drawn: intervals by resampling the pictures.

References
----------
Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13.
"""

from collections.abc import Callable

import numpy as np

CONFIDENCE = 0.95

Statistic = Callable[[np.ndarray], float]


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
        Takes indices of samples, repetitions included, and returns the value over these.
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
    values = np.array([statistic(rng.integers(count, size=count)) for _ in range(resamples)])
    low, high = np.quantile(values - values.mean(), [(1 - confidence) / 2, (1 + confidence) / 2])
    value = statistic(np.arange(count))
    return float(value + low), float(value + high)
