"""What a watched job looks like: the figures that its events bring, as a live bar or as plain lines."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import fmean
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn
from rich.text import Text

from client.models import Event
from client.quantities import duration

PLAIN_SHARE = 0.1
BLOCKS = "▁▂▃▄▅▆▇█"
CURVE_WIDTH = 20
MOST_LOSSES = 2_000
DISTANCES = {"frechet_distance_drawn": "drawn", "frechet_distance_text_only": "text-only"}


@dataclass
class Figures:
    """Where a job is, as of the last event.

    Attributes
    ----------
    done, total, unit
        Of the present phase.
    losses
        Of the present phase, in order; those of a long one as means, each of as many as any other.
    """

    status: str = "queued"
    phase: str = ""
    done: int = 0
    total: int = 0
    unit: str = ""
    eta_seconds: float | None = None
    attempt: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    losses: list[float] = field(default_factory=list)
    _share: int = 1
    _waiting: list[float] = field(default_factory=list)

    def take(self, event: Event) -> None:
        """Take in what an event says."""
        data = event.data
        self.attempt = event.attempt
        if event.type == "status":
            self.status, self.phase, self.done, self.total = data["status"], "", 0, 0
        elif event.type == "phase":
            self.phase, self.done, self.total, self.unit = data["phase"], 0, 0, ""
            self.eta_seconds, self.metrics = None, {}
            self.losses, self._share, self._waiting = [], 1, []
        elif event.type == "progress":
            self.phase, self.done, self.total = data["phase"], data["done"], data["total"]
            self.unit, self.eta_seconds = data["unit"], data["eta_seconds"]
        elif event.type == "metrics":
            told = {name: value for name, value in data["values"].items() if value is not None}
            self.metrics |= told  # the losses come more often than the distances
            if "loss" in told:
                self._keep(told["loss"])

    def _keep(self, loss: float) -> None:
        """Keep a loss; when there are too many, the mean of every two in place of them."""
        self._waiting.append(loss)
        if len(self._waiting) < self._share:
            return
        self.losses.append(fmean(self._waiting))
        self._waiting.clear()
        if len(self.losses) == MOST_LOSSES:
            self.losses = [fmean(pair) for pair in zip(self.losses[::2], self.losses[1::2], strict=True)]
            self._share *= 2

    @property
    def heading(self) -> str:
        """The phase of a job that runs, the status of any other; and which attempt it is past the first."""
        again = f" (attempt {self.attempt})" if self.attempt > 1 else ""
        return (self.phase or self.status) + again

    @property
    def details(self) -> str:
        """The figures in words."""
        parts = [f"{self.done}/{self.total} {self.unit}"] if self.total else []
        if "loss" in self.metrics:
            parts.append(f"loss {self.metrics['loss']:.4g}")
        if "samples_per_second" in self.metrics:
            parts.append(f"{self.metrics['samples_per_second']:.0f} samples/s")
        for name, words in DISTANCES.items():
            if name in self.metrics:
                parts.append(f"{words} {self.metrics[name]:.3g}")
        if self.eta_seconds is not None:
            parts.append(f"ETA {duration(self.eta_seconds)}")
        return "  ".join(parts)


def sparkline(values: Sequence[float], width: int = CURVE_WIDTH) -> str:
    """Draw values as a row of blocks, from the lowest to the highest by their logarithm.

    Parameters
    ----------
    values
        In order. What is not above zero, or not finite, is left out.
    width
        Characters at most; each stands for the mean of as many values as have to share it.
    """
    logarithms = [math.log(value) for value in values if 0 < value < math.inf]
    count = min(width, len(logarithms))
    edges = [round(index * len(logarithms) / count) for index in range(count + 1)] if count else []
    means = [fmean(logarithms[begin:end]) for begin, end in pairwise(edges)]
    if not means:
        return ""
    lowest, spread = min(means), max(means) - min(means)
    top = len(BLOCKS) - 1
    return "".join(BLOCKS[round((mean - lowest) / spread * top) if spread else 0] for mean in means)


class Display(Protocol):
    """Shows figures as they change."""

    def __enter__(self) -> Self:
        """Begin."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End."""

    def show(self, figures: Figures) -> None:
        """Show the present figures."""


class CurveColumn(ProgressColumn):
    """The curve of the losses, made when the bar is drawn and not with every event."""

    def render(self, task: Task) -> Text:
        """See `ProgressColumn`."""
        return Text(sparkline(task.fields["losses"]), style="cyan")


class LiveBar:
    """A bar that is redrawn in place, ten times a second."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            TextColumn("[bold]{task.description:<10}", markup=True),
            BarColumn(bar_width=30),
            TextColumn("{task.fields[details]}", markup=False),
            CurveColumn(),
            console=console,
        )
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        self._progress.start()
        self._task = self._progress.add_task("", total=None, details="", losses=())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def show(self, figures: Figures) -> None:
        """Redraw the bar."""
        assert self._task is not None  # noqa: S101 (set on entering)
        self._progress.update(
            self._task,
            description=figures.heading,
            completed=figures.done,
            total=figures.total or None,
            details=figures.details,
            losses=figures.losses,
        )


class PlainLines:
    """A line for every phase and for every tenth of it, for logs and pipes."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._shown: tuple[str, int] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing to put back in order."""

    def show(self, figures: Figures) -> None:
        """Write a line if a tenth is full."""
        tenth = int(figures.done / figures.total / PLAIN_SHARE) if figures.total else 0
        if (figures.heading, tenth) == self._shown:
            return
        self._shown = figures.heading, tenth
        line = f"{figures.heading}  {figures.details}".rstrip()
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)


def display_on(console: Console) -> Display:
    """Choose how to show a job on a console."""
    return LiveBar(console) if console.is_terminal else PlainLines(console)
