"""Whether a training has come apart: a loss that is not finite, or far above what it usually is.

What counts is the mean loss of each report, against the reports before it. A guard judges nothing but
finiteness until it has seen some reports, and its limit widens with their spread, so that neither the steep
start of a training nor the noise of small batches passes for an explosion. Its state is part of every
checkpoint: a run that was killed judges as one that was not.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any, Self

from core.errors import DivergedError

REMEMBERED = 50
"""Reports that a loss is held against."""
FEWEST = 8
"""Reports before anything finite is judged."""
FACTOR = 10.0
"""A loss within so many times the median of the reports before is never an explosion."""
DEVIATIONS = 6.0
"""Nor is one within so many standard deviations of the logarithms, estimated by their median deviation."""
DEVIATION_OF_MEDIAN_DEVIATION = 1.4826
SMALLEST = 1e-30
LOWER_RATE = 0.5


@dataclass(frozen=True)
class Report:
    """The mean loss up to a step; None where it is not finite."""

    step: int
    loss: float | None


@dataclass
class DivergenceGuard:
    """Judges the losses of one course of a training, which may go back once.

    Attributes
    ----------
    rate_factor
        What the learning rate is multiplied by: 1, or less once the course has gone back.
    reports
        The latest reports, in order.
    abandoned
        Those that the course had when it went back, the one that it went back for last.
    """

    rate_factor: float = 1.0
    reports: list[Report] = field(default_factory=list)
    abandoned: list[Report] = field(default_factory=list)

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Self:
        """Read what `to_json` made."""
        reports, abandoned = (
            [Report(**report) for report in content[name]] for name in ("reports", "abandoned")
        )
        return cls(content["rate_factor"], reports, abandoned)

    def to_json(self) -> dict[str, Any]:
        """Return the guard's state, for a checkpoint or a user."""
        return asdict(self)

    @property
    def has_gone_back(self) -> bool:
        """Whether the one time is used up."""
        return self.rate_factor < 1

    def judge(self, step: int, means: Mapping[str, float]) -> str | None:
        """Take a report and say what is wrong with it, or None.

        Parameters
        ----------
        step
            Steps of the job.
        means
            Of every metric since the report before, the ``loss`` among them.
        """
        limit, loss = self.limit(), means["loss"]
        self.reports = [*self.reports, Report(step, loss if math.isfinite(loss) else None)][-REMEMBERED:]
        if not all(map(math.isfinite, means.values())):
            return f"the loss is no longer a finite number at step {step}"
        if loss > limit:
            return f"the loss has exploded at step {step}: it is {loss:.3g}, and the limit was {limit:.3g}"
        return None

    def limit(self) -> float:
        """Return the loss above which the next report is an explosion."""
        losses = [report.loss for report in self.reports if report.loss is not None]
        if len(losses) < FEWEST:
            return math.inf
        logarithms = [math.log(max(loss, SMALLEST)) for loss in losses]
        middle = median(logarithms)
        spread = DEVIATION_OF_MEDIAN_DEVIATION * median(abs(value - middle) for value in logarithms)
        return math.exp(min(middle + max(math.log(FACTOR), DEVIATIONS * spread), 700.0))

    def go_back(self, abandoned: list[Report]) -> None:
        """Go on from this guard's step with a lower rate, remembering the reports that led nowhere."""
        self.abandoned = abandoned
        self.rate_factor *= LOWER_RATE

    def error(self, trouble: str, section: str) -> DivergedError:
        """Return the error that ends a training which has no way back any more.

        Parameters
        ----------
        trouble
            What `judge` said.
        section
            The section of the specification with the learning rate.
        """
        before = (
            f"; the run had gone back once before, at step {self.abandoned[-1].step}, and had gone on with "
            f"{self.rate_factor:g} times the learning rate"
            if self.has_gone_back
            else ""
        )
        return DivergedError(
            f"{trouble}{before}. The losses last reported: {_in_words(self.reports)}",
            f"lower {section}.learning_rate; the losses of both tries are in divergence.json, among the logs",
        )


def _in_words(reports: list[Report]) -> str:
    shown = [
        f"step {report.step}: {'not finite' if report.loss is None else format(report.loss, '.3g')}"
        for report in reports[-5:]
    ]
    return ", ".join(shown)
