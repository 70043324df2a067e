"""Our measures on features that an independent library is given as well."""

from typing import Any

import numpy as np
import pytest
import torch
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.inception import InceptionScore
from torchmetrics.image.kid import KernelInceptionDistance

from core.metrics.frechet import frechet_distance
from core.metrics.inception_score import inception_score
from core.metrics.kernel import kernel_inception_distance

WIDTH = 32
Sets = tuple[np.ndarray, np.ndarray]

# The library warns of what it keeps in memory, and that a score of all pictures at once has no deviation.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


class Given(torch.nn.Module):
    """In the place of a network: what it is given are the features."""

    num_features = WIDTH

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return features


@pytest.fixture(params=[(300, 300), (40, 25)], ids=["more samples than features", "about as many"])
def sets(request: pytest.FixtureRequest) -> Sets:
    rng = np.random.default_rng(0)
    first, second = (
        rng.normal(size=(count, WIDTH)) @ rng.normal(size=(WIDTH, WIDTH)) for count in request.param
    )
    return first, second + 0.3


def compute(metric: Any, sets: Sets) -> torch.Tensor | tuple[torch.Tensor, ...]:
    metric.set_dtype(torch.float64)
    for features, real in zip(sets, (True, False), strict=True):
        metric.update(torch.from_numpy(features), real=real)
    return metric.compute()


def test_the_frechet_distance(sets: Sets) -> None:
    distance = compute(FrechetInceptionDistance(feature=Given()), sets)
    assert frechet_distance(*sets) == pytest.approx(distance.item(), rel=1e-6)


def test_kid(sets: Sets) -> None:
    """The library takes the mean over random subsets; one as large as the set is the set."""
    first, second = (features[: min(map(len, sets))] for features in sets)
    metric = KernelInceptionDistance(feature=Given(), subsets=1, subset_size=len(first))
    distance, _deviation = compute(metric, (first, second))
    assert kernel_inception_distance(first, second) == pytest.approx(distance.item(), rel=1e-9)


def test_the_inception_score() -> None:
    logits = torch.from_numpy(np.random.default_rng(0).normal(size=(200, WIDTH)))
    metric = InceptionScore(feature=Given(), splits=1)
    metric.set_dtype(torch.float64)
    metric.update(logits)
    score, _deviation = metric.compute()
    assert inception_score(logits.softmax(dim=1).numpy()) == pytest.approx(score.item(), rel=1e-9)
