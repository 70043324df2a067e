"""Scores from judgements, by way of sets that are known to be like or unlike each other."""

import numpy as np
import pytest

from core.metrics.frechet import frechet_distance
from core.metrics.kernel import clip_mmd, kernel_inception_distance
from core.scores import build_scores, score_pictures
from core.stopping import Stopped

ALWAYS = {"frechet_distance", "kid", "precision", "recall"}


def never() -> None:
    """Let a score go on."""


def judgements(seed: int, shift: float = 0, count: int = 60) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    features = (rng.normal(size=(count, 4)) + shift).astype(np.float32)
    return {
        "features": features,
        "clip": features,
        "clip_similarity": rng.uniform(0.2, 0.3, count).astype(np.float32),
        "probabilities": rng.dirichlet(np.ones(5), count).astype(np.float32),
        "reference_rank": np.where(np.arange(count) % 3, np.arange(count) % 4, np.nan).astype(np.float32),
    }


def test_every_score_is_that_of_its_formula() -> None:
    judged, reference = judgements(0), judgements(1)
    values, intervals = score_pictures(judged, reference, resamples=0, seed=0, check=never)
    features, others = judged["features"], reference["features"]
    assert values["frechet_distance"] == pytest.approx(frechet_distance(features, others))
    assert values["kid"] == pytest.approx(kernel_inception_distance(features, others))
    assert values["cmmd"] == pytest.approx(clip_mmd(features, others))
    assert values["clip_score"] == pytest.approx(judged["clip_similarity"].mean())
    ranks = judged["reference_rank"][np.arange(60) % 3 > 0]
    assert values["nearest_top1"] == pytest.approx((ranks == 0).mean())
    assert values["nearest_top5"] == 1
    assert intervals == {}


def test_another_distribution_scores_worse_beyond_the_intervals() -> None:
    reference = judgements(1)
    like, unlike = (
        score_pictures(judgements(2, shift), reference, 50, seed=0, check=never) for shift in (0, 3)
    )
    for name in ("frechet_distance", "kid", "cmmd"):
        assert like[1][name][1] < unlike[1][name][0]
    for name in ("precision", "recall"):
        assert like[1][name][0] > unlike[1][name][1]


@pytest.mark.parametrize(
    ("kept", "names"),
    [
        ({"features"}, ALWAYS),
        ({"features", "clip", "clip_similarity"}, ALWAYS | {"cmmd", "clip_score"}),
        ({"features", "probabilities"}, ALWAYS | {"inception_score"}),
    ],
)
def test_scores_are_those_that_the_judge_can_tell(kept: set[str], names: set[str]) -> None:
    judged = {name: values for name, values in judgements(0).items() if name in kept}
    assert set(build_scores(judged, judged, never)) == names


def test_no_interval_leaves_what_a_score_can_be() -> None:
    few = judgements(0, count=4)
    _, intervals = score_pictures(few, judgements(1, count=4), resamples=10, seed=0, check=never)
    for name in ("precision", "recall", "nearest_top1", "nearest_top5"):
        assert 0 <= intervals[name][0] <= intervals[name][1] <= 1
    assert min(intervals["frechet_distance"][0], intervals["cmmd"][0]) >= 0
    assert intervals["inception_score"][0] >= 1


def test_without_a_known_reference_there_is_no_nearest_share() -> None:
    judged = judgements(0) | {"reference_rank": np.full(60, np.nan)}
    assert not any(name.startswith("nearest") for name in build_scores(judged, judgements(1), never))


@pytest.mark.parametrize("stopped_after", [0, 3, 40])
def test_scores_can_be_given_up(stopped_after: int) -> None:
    checks = iter(range(stopped_after))

    def check() -> None:
        if next(checks, None) is None:
            raise Stopped

    with pytest.raises(Stopped):
        score_pictures(judgements(0), judgements(1), resamples=50, seed=0, check=check)
