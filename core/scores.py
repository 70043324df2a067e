"""The scores of a model's judged pictures, each with an interval.

Axes: N pictures, D feature, K classes.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from core.judges import Judgements
from core.metrics.bootstrap import bootstrap_interval
from core.metrics.frechet import frechet_distance
from core.metrics.inception_score import inception_score
from core.metrics.kernel import clip_mmd, kernel_inception_distance
from core.metrics.precision_recall import inside_manifold

NEAREST = (1, 5)


@dataclass(frozen=True)
class Score:
    """A score as a function of which pictures are taken.

    Attributes
    ----------
    of_rows
        Takes indices of pictures, repetitions included.
    pictures
        How many there are to take from.
    lowest, highest
        What it can be.
    """

    of_rows: Callable[[np.ndarray], float]
    pictures: int
    lowest: float = -np.inf
    highest: float = np.inf

    @property
    def value(self) -> float:
        """The score of all pictures."""
        return float(self.of_rows(np.arange(self.pictures)))

    def interval(self, resamples: int, seed: int) -> tuple[float, float]:
        """Return the bootstrap's interval as far as it is possible."""
        ends = bootstrap_interval(self.of_rows, self.pictures, resamples, seed)
        low, high = (min(max(end, self.lowest), self.highest) for end in ends)
        return low, high


def score_pictures(
    judged: Judgements, reference: Judgements, resamples: int, seed: int
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
    """
    scores = build_scores(judged, reference)
    values = {name: score.value for name, score in scores.items()}
    intervals = {name: score.interval(resamples, seed) for name, score in scores.items() if resamples}
    return values, intervals


def build_scores(judged: Judgements, reference: Judgements) -> dict[str, Score]:
    """Return every score that these judgements allow, by the name it has in results."""
    features_ND, reference_ND = judged["features"], reference["features"]
    N = len(features_ND)
    like_reference_N = inside_manifold(features_ND, reference_ND)
    reached_N = inside_manifold(reference_ND, features_ND)
    scores = {
        "frechet_distance": Score(
            lambda rows: frechet_distance(features_ND[rows], reference_ND[rows]), N, lowest=0
        ),
        "kid": Score(lambda rows: kernel_inception_distance(features_ND[rows], reference_ND[rows]), N),
        "precision": Score(lambda rows: like_reference_N[rows].mean(), N, 0, 1),
        "recall": Score(lambda rows: reached_N[rows].mean(), N, 0, 1),
    }
    if "clip" in judged:
        clip_ND, reference_clip_ND = judged["clip"], reference["clip"]
        similarity_N = judged["clip_similarity"].astype(np.float64)
        scores["cmmd"] = Score(lambda rows: clip_mmd(clip_ND[rows], reference_clip_ND[rows]), N, lowest=0)
        scores["clip_score"] = Score(lambda rows: similarity_N[rows].mean(), N)
    if "probabilities" in judged:
        probability_NK = judged["probabilities"]
        scores["inception_score"] = Score(lambda rows: inception_score(probability_NK[rows]), N, lowest=1)
    if "reference_rank" in judged:
        scores |= _nearest_scores(judged["reference_rank"])
    return scores


def _nearest_scores(rank_N: np.ndarray) -> dict[str, Score]:
    """Return the shares of pictures whose own reference is the nearest one, or among the nearest few."""
    known = rank_N[~np.isnan(rank_N)]
    if not len(known):
        return {}

    def share(nearest: int) -> Score:
        hit = known < nearest
        return Score(lambda rows: hit[rows].mean(), len(known), 0, 1)

    return {f"nearest_top{nearest}": share(nearest) for nearest in NEAREST}
