"""A plot for each experiment: the distance to the teacher's pictures, as an SVG."""

from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.paper.experiments import Experiment
from benchmarks.paper.findings import DISTANCE, Row

WIDE = 20  # times the least: more than that does not fit on a linear axis
CLOSE = 1.2
AXES: Mapping[str, Mapping[str, Callable[[Row], float]]] = {
    "drawn pictures": {"drawn pictures": lambda row: row.drawn_pictures},
    "parameters": {
        "parameters of the U-Net": lambda row: row.parameters,
        "GMACs a pass": lambda row: row.gmacs,
    },
    "U-Net calls": {"U-Net calls a picture": lambda row: row.unet_calls},
}
"""What an experiment's jobs are plotted against: a panel each."""
SEEDS: Mapping[str, Any] = {"linestyle": "none", "marker": "o", "markersize": 3, "color": "black"}
COLOURS = {"drawn": "#4c72b0", "text_only": "#dd8452", "held_out": "#55a868"}
# Readers search and copy the text, and the same figures give the same file.
mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "condenser"})


def plot(experiment: Experiment, rows: list[Row], path: Path) -> None:
    """Draw an experiment's answer.

    Parameters
    ----------
    experiment
        What was asked.
    rows
        What was measured; of all splits and seeds.
    path
        The SVG to write.
    """
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    if experiment.axis is None:
        _bars(figure.subplots(), experiment, rows)
    else:
        shown = [row for row in rows if row.split == experiment.split]
        costs = AXES[experiment.axis]
        panels = figure.subplots(1, len(costs), sharey=True, squeeze=False)[0]
        for axes, (label, position) in zip(panels, costs.items(), strict=True):
            _curves(axes, experiment, shown, label, position)
        panels[0].set_ylabel(f"Fréchet distance, {experiment.split.replace('_', '-')}\n(less is better)")
        panels[0].legend(frameon=False)
    figure.suptitle(experiment.question)
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, metadata={"Date": None})


def _bars(axes: Axes, experiment: Experiment, rows: list[Row]) -> None:
    """Draw a bar for each label and split."""
    splits = [split for split in COLOURS if any(row.split == split for row in rows)]
    labels = ["teacher", *experiment.specs]
    thickness = 0.8 / len(splits)
    for place, split in enumerate(splits):
        chosen = [[row for row in rows if (row.label, row.split) == (label, split)] for label in labels]
        shown = [(number + place * thickness, same) for number, same in enumerate(chosen) if same]
        heights = [height for height, _ in shown]
        axes.barh(
            heights,
            [_mean(same) for _, same in shown],
            height=thickness,
            color=COLOURS[split],
            label=split.replace("_", "-"),
            xerr=_error_bars([same for _, same in shown]),
            error_kw={"elinewidth": 1},
        )
        for height, same in shown:
            if len(same) > 1:
                values = [row.scores[DISTANCE] for row in same]
                axes.plot(values, [height] * len(same), **SEEDS)
    axes.set_yticks([number + 0.4 - thickness / 2 for number in range(len(labels))], labels)
    axes.invert_yaxis()
    axes.set_xlabel("Fréchet distance to other pictures of the teacher (less is better)")
    axes.legend(frameon=False)


def _curves(
    axes: Axes, experiment: Experiment, rows: list[Row], label: str, position: Callable[[Row], float]
) -> None:
    """Draw the distance against what it costs; labels that differ in a number alone are one curve."""
    families: dict[str, dict[float, list[Row]]] = {}
    for row in rows:
        name = row.label.rpartition(", ")[2] if "," in row.label else row.label
        at_position = families.setdefault(_family(name, experiment), {})
        at_position.setdefault(position(row), []).append(row)
    for name, members in families.items():
        positions = sorted(members)
        same = [members[place] for place in positions]
        axes.errorbar(
            positions,
            [_mean(rows_there) for rows_there in same],
            yerr=_error_bars(same),
            marker="o",
            capsize=2,
            label=name,
        )
    values = [row.scores[DISTANCE] for row in rows]
    if max(values) > WIDE * min(values):
        axes.set_yscale("log")
    axes.set_xscale("log")
    ticks = _ticks({position(row) for row in rows})
    axes.set_xticks(ticks, [_short(tick) for tick in ticks])
    axes.minorticks_off()
    axes.set_xlabel(label)


def _family(name: str, experiment: Experiment) -> str:
    if name.startswith("transferred"):
        return "transferred"
    return "block students" if experiment.axis == "parameters" and name.startswith("b-") else name


def _ticks(positions: set[float]) -> list[float]:
    """Choose positions to label, leaving out those that would be written over the one before."""
    ticks: list[float] = []
    for position in sorted(positions):
        if not ticks or position >= CLOSE * ticks[-1]:
            ticks.append(position)
    return ticks


def _short(number: float) -> str:
    if number < 1:
        return f"{number:.2f}"
    return f"{number / 1e6:.1f}M" if number >= 1e6 else f"{number:,.0f}"


def _mean(rows: list[Row]) -> float:
    """Return the mean distance over the seeds."""
    return fmean(row.scores[DISTANCE] for row in rows)


def _error_bars(groups: list[list[Row]]) -> list[list[float]] | None:
    """Return the lengths of the bars below and above each group's mean: the widest reach of its intervals.

    An interval need not hold a biased score.
    """
    if not all(DISTANCE in row.intervals for rows in groups for row in rows):
        return None
    below, above = [], []
    for rows in groups:
        mean = _mean(rows)
        below.append(max(0.0, mean - min(row.intervals[DISTANCE][0] for row in rows)))
        above.append(max(0.0, max(row.intervals[DISTANCE][1] for row in rows) - mean))
    return [below, above]
