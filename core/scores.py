"""The scores of a model's judged pictures, each with an interval.

Axes: N pictures, D feature, K classes, B resamples.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from core.judges import Judgements
from core.metrics.bootstrap import Statistic, bootstrap_interval
from core.metrics.frechet import frechet_distance
from core.metrics.inception_score import inception_score
from core.metrics.kernel import resampled_cmmd, resampled_kid
from core.metrics.precision_recall import inside_manifold

NEAREST = (1, 5)


@dataclass(frozen=True)
class Score:
    """A score as a function of how often each picture is taken.

    Attributes
    ----------
    of_times
        Takes that of several resamples, BN, and returns a value for each.
    pictures
        How many there are to take from.
    lowest, highest
        What it can be.
    """

    of_times: Statistic
    pictures: int
    lowest: float = -np.inf
    highest: float = np.inf

    @property
    def value(self) -> float:
        """The score of all pictures."""
        return float(self.of_times(np.ones((1, self.pictures), np.int64))[0])

    def interval(self, resamples: int, seed: int) -> tuple[float, float]:
        """Return the bootstrap's interval as far as it is possible."""
        ends = bootstrap_interval(self.of_times, self.pictures, resamples, seed)
        low, high = (min(max(end, self.lowest), self.highest) for end in ends)
        return low, high


def score_pictures(
    judged: Judgements, reference: Judgements, resamples: int, seed: int, check: Callable[[], object]
) -> tuple[dict[str, float], dict[str, tuple[float, float]]]:
    """Return a model's scores, and for each its interval.

    Parameters
    ----------
    judged
        The model's pictures.
    reference
        Pictures of the same captions to compare them with. A resample takes both pictures of a caption.
    resamples
        Of the bootstrap; with 0 there are no intervals.
    seed
        Of the bootstrap.
    check
        Called every now and then, as of many pictures scores take long; it may raise to give up.
    """
    scores = build_scores(judged, reference, check)
    values = {name: score.value for name, score in scores.items()}
    intervals = {name: score.interval(resamples, seed) for name, score in scores.items() if resamples}
    return values, intervals


def build_scores(judged: Judgements, reference: Judgements, check: Callable[[], object]) -> dict[str, Score]:
    """Return every score that these judgements allow, by the name it has in results."""
    features_ND, reference_ND = judged["features"], reference["features"]
    N = len(features_ND)
    like_reference_N = inside_manifold(features_ND, reference_ND, before_block=check)
    reached_N = inside_manifold(reference_ND, features_ND, before_block=check)

    def frechet_of_rows(rows: np.ndarray) -> float:
        return frechet_distance(features_ND[rows], reference_ND[rows])

    scores = {
        "frechet_distance": Score(_one_by_one(frechet_of_rows, check), N, lowest=0),
        "kid": Score(lambda times_BN: resampled_kid(features_ND, reference_ND, times_BN, check), N),
        "precision": Score(_mean(like_reference_N), N, 0, 1),
        "recall": Score(_mean(reached_N), N, 0, 1),
    }
    if "clip" in judged:
        clip_ND, reference_clip_ND = judged["clip"], reference["clip"]
        scores["cmmd"] = Score(
            lambda times_BN: resampled_cmmd(clip_ND, reference_clip_ND, times_BN, check), N, lowest=0
        )
        scores["clip_score"] = Score(_mean(judged["clip_similarity"]), N)
    if "probabilities" in judged:
        probability_NK = judged["probabilities"]
        of_rows = _one_by_one(lambda rows: inception_score(probability_NK[rows]), check)
        scores["inception_score"] = Score(of_rows, N, lowest=1)
    if "reference_rank" in judged:
        scores |= _nearest_scores(judged["reference_rank"])
    return scores


def _mean(values_N: np.ndarray) -> Statistic:
    values_N = values_N.astype(np.float64)
    return lambda times_BN: times_BN @ values_N / times_BN.sum(axis=1)


def _one_by_one(of_rows: Callable[[np.ndarray], float], check: Callable[[], object]) -> Statistic:
    """Return the statistic of a score that takes indices of pictures, repetitions included."""

    def statistic(times_BN: np.ndarray) -> np.ndarray:
        values = []
        for times_N in times_BN:
            check()
            values.append(of_rows(np.repeat(np.arange(len(times_N)), times_N)))
        return np.array(values)

    return statistic


def _nearest_scores(rank_N: np.ndarray) -> dict[str, Score]:
    """Return the shares of pictures whose own reference is the nearest one, or among the nearest few."""
    known = rank_N[~np.isnan(rank_N)]
    if not len(known):
        return {}
    return {f"nearest_top{nearest}": Score(_mean(known < nearest), len(known), 0, 1) for nearest in NEAREST}
