"""Plots as numbers: everything lies within the picture, and names do not cover each other."""

import itertools

import pytest

from api.pages import scatter
from api.pages.scatter import Point, Scatter


def plot(*places: tuple[float, float]) -> Scatter:
    points = [Point(x, y, f"model-{number}", "/") for number, (x, y) in enumerate(places)]
    made = Scatter.of("Title", "x", "y", points)
    assert made is not None
    return made


@pytest.mark.parametrize("places", [[(1, 2)], [(0, 0)], [(5, -1), (7, -1)], [(1e9, 1e-9), (2e9, 5e-9)]])
def test_points_and_ticks_lie_within_the_axes(places: list[tuple[float, float]]) -> None:
    made = plot(*places)
    assert len(made.points) == len(places)
    for placed in made.points:
        assert made.left <= placed.x <= made.right
        assert made.top <= placed.y <= made.bottom
    assert all(made.left <= tick.at <= made.right for tick in made.x_ticks)
    assert all(made.top <= tick.at <= made.bottom for tick in made.y_ticks)
    assert 2 <= len(made.x_ticks) <= 6


def test_values_that_lie_far_apart_are_told_apart_by_their_logarithms() -> None:
    made = plot((1, 0.001), (2, 0.002), (3, 0.1))
    assert made.is_logarithmic
    low, twice, _ = made.points
    assert low.y - twice.y > 15
    assert [tick.label for tick in made.y_ticks] == ["0.001", "0.002", "0.005", "0.01", "0.02", "0.05", "0.1"]
    assert not plot((1, 0), (2, 9)).is_logarithmic
    assert not plot((1, 1), (2, 9)).is_logarithmic


def test_more_is_farther_right_and_higher() -> None:
    low, high = plot((1, 1), (2, 2)).points
    assert low.x < high.x
    assert low.y > high.y


def test_names_of_near_points_do_not_meet() -> None:
    points = plot((5, 0.1), (5.1, 0.1), (5.2, 0.1), (0, 9)).points
    boxes = [(each.name_x, each.name_y) for each in points]
    for (x, y), (other_x, other_y) in itertools.combinations(boxes, 2):
        assert abs(y - other_y) >= scatter.NAME_HEIGHT or abs(x - other_x) > 50


def test_a_plot_without_points_is_none() -> None:
    assert Scatter.of("Title", "x", "y", []) is None
