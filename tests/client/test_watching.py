"""The figures of a watched job, and the curve of its loss."""

import io
import math
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from rich.console import Console

from client.models import Event
from client.watching import Figures, display_on, sparkline


def event(kind: str, **data: Any) -> Event:
    return Event(sequence=1, at=datetime(2026, 3, 1, tzinfo=UTC), type=kind, attempt=1, data=data)


def test_a_curve_falls_from_the_highest_block_to_the_lowest() -> None:
    assert sparkline([8.0, 4.0, 2.0, 1.0]) == "█▆▃▁"
    assert sparkline([1.0, 1.0]) == "▁▁"
    assert sparkline([0.0, math.inf, math.nan]) == ""
    long = sparkline([math.exp(-step / 100) for step in range(1_000)])
    assert (len(long), long[0], long[-1]) == (20, "█", "▁")
    assert list(long) == sorted(long, reverse=True)


def test_distances_are_told_beside_the_losses_that_come_more_often() -> None:
    figures = Figures()
    scored = {"frechet_distance_drawn": 0.25, "frechet_distance_drawn_low": 0.2}
    for values in ({"loss": 4.0}, {"loss": 2.0}, scored, {"loss": 1.0}):
        figures.take(event("metrics", step=1, values=values))
    assert figures.details == "loss 1  drawn 0.25"
    assert figures.losses == [4.0, 2.0, 1.0]


def test_a_terminal_shows_the_losses_of_the_present_phase_and_a_pipe_does_not() -> None:
    figures = Figures()
    for told in (
        event("phase", phase="training"),
        event("metrics", step=1, values={"loss": 9.0}),
        event("phase", phase="few_step"),
        *(event("metrics", step=step, values={"loss": 2.0**-step, "odd": None}) for step in (2, 3, 4)),
    ):
        figures.take(told)
    assert figures.losses == [0.25, 0.125, 0.0625]
    shown = {}
    for is_terminal in (True, False):
        written = io.StringIO()
        with display_on(Console(file=written, force_terminal=is_terminal, width=120)) as display:
            display.show(figures)
        shown[is_terminal] = written.getvalue()
    assert "█▅▁" in shown[True].replace("▄", "▅")
    assert shown[False] == "few_step  loss 0.0625\n"


def test_the_curve_of_a_long_training_costs_no_more_with_every_event(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[int] = []

    def counting(values: Sequence[float]) -> str:
        drawn.append(len(values))
        return sparkline(values)

    monkeypatch.setattr("client.watching.sparkline", counting)
    figures, losses = Figures(), [math.exp(-step / 4_000) for step in range(24_000)]
    written = io.StringIO()
    with display_on(Console(file=written, force_terminal=True, width=120)) as display:
        for step, loss in enumerate(losses):
            figures.take(event("metrics", step=step, values={"loss": loss}))
            display.show(figures)
    assert max(drawn) <= 2_000
    assert len(drawn) < len(losses) / 10, "it is drawn with the bar, which nobody sees change more often"
    assert sparkline(figures.losses) == sparkline(losses)
    assert sparkline(losses) in written.getvalue()
    figures.take(event("phase", phase="few_step"))
    figures.take(event("metrics", step=1, values={"loss": 0.5}))
    assert figures.losses == [0.5]
