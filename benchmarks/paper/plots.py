"""A plot for each experiment: the distance to the teacher's pictures, as an SVG."""

from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.paper.experiments import Experiment
from benchmarks.paper.findings import Row

SCORE = "frechet_distance"
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
    axes = figure.subplots()
    if experiment.axis is None:
        _bars(axes, experiment, rows)
    else:
        _curves(axes, experiment, [row for row in rows if row.split == experiment.split])
    axes.set_title(experiment.question)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, metadata={"Date": None})


def _bars(axes: Axes, experiment: Experiment, rows: list[Row]) -> None:
    """Draw a bar for each label and split, with its interval; the first seed's."""
    seed = min(row.seed for row in rows)
    splits = [split for split in COLOURS if any(row.split == split for row in rows)]
    labels = ["teacher", *experiment.specs]
    thickness = 0.8 / len(splits)
    for place, split in enumerate(splits):
        chosen = {row.label: row for row in rows if row.split == split and row.seed == seed}
        shown = [(number, chosen[label]) for number, label in enumerate(labels) if label in chosen]
        values = [row.scores[SCORE] for _, row in shown]
        axes.barh(
            [number + place * thickness for number, _ in shown],
            values,
            height=thickness,
            color=COLOURS[split],
            label=split.replace("_", "-"),
            xerr=_error_bars([row for _, row in shown]),
            error_kw={"elinewidth": 1},
        )
    axes.set_yticks([number + 0.4 - thickness / 2 for number in range(len(labels))], labels)
    axes.invert_yaxis()
    axes.set_xlabel("Fréchet distance to other pictures of the teacher (less is better)")
    axes.legend(frameon=False)


def _curves(axes: Axes, experiment: Experiment, rows: list[Row]) -> None:
    """Draw the distance against the experiment's axis; labels that differ in a number alone are one curve."""
    families: dict[str, list[Row]] = {}
    for row in rows:
        name = row.label.rpartition(", ")[2] if "," in row.label else row.label
        families.setdefault(_family(name, experiment), []).append(row)
    for name, members in families.items():
        members.sort(key=lambda row: _position(row, experiment))
        axes.errorbar(
            [_position(row, experiment) for row in members],
            [row.scores[SCORE] for row in members],
            yerr=_error_bars(members),
            marker="o",
            capsize=2,
            label=name,
        )
    axes.set_xscale("log")
    ticks = sorted({_position(row, experiment) for row in rows})
    axes.set_xticks(ticks, [_short(tick) for tick in ticks])
    axes.minorticks_off()
    axes.set_xlabel({"parameters": "parameters of the U-Net"}.get(str(experiment.axis), experiment.axis))
    axes.set_ylabel(f"Fréchet distance, {experiment.split.replace('_', '-')}\n(less is better)")
    axes.legend(frameon=False)


def _family(name: str, experiment: Experiment) -> str:
    if name.startswith("transferred"):
        return "transferred"
    return "block students" if experiment.axis == "parameters" and name.startswith("b-") else name


def _position(row: Row, experiment: Experiment) -> int:
    match experiment.axis:
        case "parameters":
            return row.parameters
        case "drawn pictures":
            return row.drawn_pictures
        case _:
            return row.unet_calls


def _short(number: int) -> str:
    return f"{number / 1e6:.1f}M" if number >= 1e6 else f"{number:,}"


def _error_bars(rows: list[Row]) -> list[list[float]] | None:
    """Return the lengths of the bars below and above; an interval need not hold a biased score."""
    if not all(SCORE in row.intervals for row in rows):
        return None
    below = [max(0.0, row.scores[SCORE] - row.intervals[SCORE][0]) for row in rows]
    above = [max(0.0, row.intervals[SCORE][1] - row.scores[SCORE]) for row in rows]
    return [below, above]
