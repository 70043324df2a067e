"""Manifolds of points whose neighbours can be told by eye, and against the definition, pair by pair."""

import numpy as np
import pytest

from core.metrics import precision_recall
from core.metrics.precision_recall import inside_manifold

LINE = np.array([[0.0], [1.0], [2.0], [10.0]])


@pytest.mark.parametrize(
    ("neighbours", "inside"),
    [
        (1, [True, False, False, True]),  # radii 1, 1, 1, 8
        (2, [True, True, False, True]),  # radii 2, 1, 2, 9
    ],
)
def test_points_on_a_line(neighbours: int, inside: list[bool]) -> None:
    samples = np.array([[-1.0], [-1.5], [-3.0], [17.0]])
    assert inside_manifold(samples, LINE, neighbours).tolist() == inside


def test_the_farthest_neighbour_stands_in_where_there_are_too_few() -> None:
    assert inside_manifold(np.array([[-9.0], [-11.0]]), LINE[[0, 3]], neighbours=3).tolist() == [True, False]


def test_equals_the_definition(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision_recall, "ROWS_AT_ONCE", 7)
    rng = np.random.default_rng(0)
    samples, manifold = rng.normal(size=(30, 3)), rng.normal(size=(25, 3)) * 0.6
    distances = np.linalg.norm(manifold[:, None] - manifold, axis=2)
    radii = [sorted(row)[3] for row in distances]
    expected = [
        any(np.linalg.norm(sample - centre) <= radius for centre, radius in zip(manifold, radii, strict=True))
        for sample in samples
    ]
    assert inside_manifold(samples, manifold).tolist() == expected
    assert 0 < sum(expected) < len(expected)
