"""A plot of points as numbers for an SVG: where the points, the ticks and their labels lie."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from api.pages.wording import figure

WIDTH, HEIGHT = 420, 280
LEFT, RIGHT, TOP, BOTTOM = 56, 16, 14, 46
MARGIN = 0.08  # of the range, around the outermost points
TICKS = 4
CHARACTER, NAME_HEIGHT, NAME_GAP = 7.5, 14, 10
NAME_PLACES = (-6, 14, -22, 30, -38)  # above the point, below it, and farther away
RADIUS = 6
WIDE_RATIO = 10  # of the highest to the lowest, from which on an axis is logarithmic


@dataclass(frozen=True)
class Point:
    """A model to plot; ``href`` leads to where it came from."""

    x: float
    y: float
    name: str
    href: str
    is_reference: bool = False


@dataclass(frozen=True)
class Placed:
    """A point with its place in the picture, and that of its name beside it."""

    point: Point
    x: float
    y: float
    name_x: float
    name_y: float
    name_ends: bool


@dataclass(frozen=True)
class Tick:
    """A mark of an axis: its place along it, and what stands there."""

    at: float
    label: str


@dataclass(frozen=True)
class Scatter:
    """One plot, in units of its picture."""

    title: str
    x_label: str
    y_label: str
    points: list[Placed]
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    is_logarithmic: bool
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    bottom: int = HEIGHT - BOTTOM
    right: int = WIDTH - RIGHT
    top: int = TOP

    @classmethod
    def of(cls, title: str, x_label: str, y_label: str, points: Sequence[Point]) -> Self | None:
        """Lay points out; None where there are none.

        The x axis begins at nought, for it shows a cost. The y axis is logarithmic if values are far apart.
        """
        if not points:
            return None
        x_low, x_high = 0.0, _widened([point.x for point in points])[1]
        values = [point.y for point in points]
        is_logarithmic = min(values) > 0 and max(values) > WIDE_RATIO * min(values)
        scale = math.log10 if is_logarithmic else float
        y_low, y_high = _widened([scale(value) for value in values])

        def across(x: float) -> float:
            return round(LEFT + (x - x_low) / (x_high - x_low) * (WIDTH - LEFT - RIGHT), 1)

        def down(y: float) -> float:
            share = (scale(y) - y_low) / (y_high - y_low)
            return round(HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM), 1)

        y_values = _powers(y_low, y_high) if is_logarithmic else _ticks(y_low, y_high)
        return cls(
            title,
            x_label,
            y_label,
            _place([(point, across(point.x), down(point.y)) for point in points]),
            [Tick(across(value), figure(value)) for value in _ticks(x_low, x_high)],
            [Tick(down(value), figure(value)) for value in y_values],
            is_logarithmic,
        )


def _place(points: Sequence[tuple[Point, float, float]]) -> list[Placed]:
    """Write each name where it meets no point and no other name, if there is such a place near its point."""
    placed: list[Placed] = []
    taken = [(x - RADIUS, y + RADIUS / 2, 2.0 * RADIUS) for _, x, y in points]
    for point, x, y in points:
        ends = x > WIDTH * 0.7
        length = CHARACTER * len(point.name)
        left = x - NAME_GAP - length if ends else x + NAME_GAP
        free = [dy for dy in NAME_PLACES if not any(_meet(left, y + dy, length, other) for other in taken)]
        name_y = y + (free[0] if free else NAME_PLACES[0])
        taken.append((left, name_y, length))
        placed.append(Placed(point, x, y, x - NAME_GAP if ends else x + NAME_GAP, name_y, ends))
    return placed


def _meet(left: float, y: float, length: float, other: tuple[float, float, float]) -> bool:
    other_left, other_y, other_length = other
    return abs(y - other_y) < NAME_HEIGHT and left < other_left + other_length and other_left < left + length


def _widened(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    margin = (high - low or abs(high) or 1.0) * MARGIN
    return low - margin, high + margin


def _powers(low: float, high: float) -> list[float]:
    """Return powers of ten, and twice and five times as much, in a range that is given by its logarithms."""
    factors = [
        factor * 10.0**power for power in range(math.floor(low), math.ceil(high)) for factor in (1, 2, 5)
    ]
    return [value for value in factors if low <= math.log10(value) <= high]


def _ticks(low: float, high: float) -> list[float]:
    """Return round numbers in a range, about as many as there shall be ticks."""
    rough = (high - low) / TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough)
    first = math.ceil(low / step)
    # Counted in whole steps, so that nought is nought.
    return [round(number * step, 12) for number in range(first, math.floor(high / step) + 1)]
