"""The losses against numpy."""

import numpy as np
import pytest
import torch

from core.losses import distillation_loss, feature_loss, output_loss
from core.spec import FeatureMatchingSpec, MethodSpec

SHAPES = [(4, 8, 6, 6), (4, 3, 2, 2), (4, 5, 1, 1)]


@pytest.fixture
def features() -> tuple[list[np.ndarray], list[np.ndarray]]:
    rng = np.random.default_rng(0)
    students = [rng.normal(size=shape).astype(np.float32) for shape in SHAPES]
    teachers = [
        (10.0**place * rng.normal(size=shape)).astype(np.float32) for place, shape in enumerate(SHAPES)
    ]
    return students, teachers


def tensors(arrays: list[np.ndarray]) -> list[torch.Tensor]:
    return [torch.from_numpy(array) for array in arrays]


def test_output_loss_is_the_mean_square(features: tuple[list[np.ndarray], list[np.ndarray]]) -> None:
    (student, *_), (teacher, *_) = features
    ours = output_loss(torch.from_numpy(student), torch.from_numpy(teacher)).item()
    assert ours == pytest.approx(np.mean((student - teacher) ** 2), rel=1e-5)


def test_the_plain_feature_loss_is_the_published_sum(
    features: tuple[list[np.ndarray], list[np.ndarray]],
) -> None:
    expected = sum(np.mean((ours - theirs) ** 2) for ours, theirs in zip(*features, strict=True))
    loss = feature_loss(*map(tensors, features), "none").item()
    assert loss == pytest.approx(expected, rel=1e-5)


def test_the_normalised_feature_loss_divides_by_the_teachers_energy(
    features: tuple[list[np.ndarray], list[np.ndarray]],
) -> None:
    expected = 0.0
    for ours, theirs in zip(*features, strict=True):
        for sample in range(len(ours)):
            energy = np.mean(theirs[sample] ** 2)
            expected += np.mean((ours[sample] - theirs[sample]) ** 2) / energy / len(ours)
    loss = feature_loss(*map(tensors, features), "teacher-energy").item()
    assert loss == pytest.approx(expected, rel=1e-5)


def test_no_layer_dominates_the_normalised_loss(
    features: tuple[list[np.ndarray], list[np.ndarray]],
) -> None:
    _, teachers = features
    silent = [torch.zeros(shape) for shape in SHAPES]
    assert feature_loss(silent, tensors(teachers), "teacher-energy").item() == pytest.approx(len(SHAPES))


def test_the_total_is_the_weighted_sum() -> None:
    one, two = torch.ones(2, 3, 4, 4), 2 * torch.ones(2, 3, 4, 4)
    method = MethodSpec(output_weight=3, features=FeatureMatchingSpec(weight=0.5, normalisation="none"))
    terms = distillation_loss((one, [one, one]), (two, [two, two]), method)
    assert [term.item() for term in terms] == [3 * 1 + 0.5 * 2, 1, 2]
