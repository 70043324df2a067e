"""What the jobs of an experiment measured, as rows: the scores of one model on one kind of captions."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from statistics import fmean, stdev
from typing import Any

from scipy.stats import t

from benchmarks.paper.experiments import Experiment

DISTANCE = "frechet_distance"
CONFIDENCE = 0.95
SCORES = ("frechet_distance", "clip_score", "nearest_top5")
SPLITS = ("drawn", "text_only", "held_out")


@dataclass(frozen=True)
class Row:
    """One model of one job, measured on one split at one number of sampler steps.

    Attributes
    ----------
    label
        Which of the experiment's jobs; ``teacher`` for the teacher beside it.
    seed
        The job's.
    split
        The captions.
    unet_calls
        U-Net passes that a picture takes; a guided step takes two.
    parameters, gmacs
        Of the U-Net; thousand millions of multiplications for one pass of one picture.
    drawn_pictures
        How many captions the teacher drew for the job.
    scores
        By name, as in a job's result.
    intervals
        95 % bootstrap intervals of the scores.
    """

    label: str
    seed: int
    split: str
    unet_calls: int
    parameters: int
    gmacs: float
    drawn_pictures: int
    scores: Mapping[str, float]
    intervals: Mapping[str, tuple[float, float]]

    def as_json(self) -> dict[str, Any]:
        """Return the row as the results file holds it."""
        return asdict(self)


def rows_of(label: str, seed: int, result: Mapping[str, Any]) -> list[Row]:
    """Return the rows of one job's result."""
    rows = []
    for split in SPLITS:
        if split not in result:
            continue
        compared = [result[split], *result[split].get("by_steps", {}).values()]
        rows += [
            Row(
                label=label if model == "student" else "teacher",
                seed=seed,
                split=split,
                unet_calls=values["unet_calls"][model],
                parameters=result[model]["parameters"],
                gmacs=result[model]["gmacs"],
                drawn_pictures=result["captions"]["drawn"],
                scores=values[model],
                intervals=values["intervals"][model],
            )
            for values in compared
            for model in ("teacher", "student")
        ]
    return rows


def distinct(rows: list[Row]) -> list[Row]:
    """Return the rows without those of a teacher that was measured beside several students alike."""
    kept = {}
    for row in rows:
        key = row.label, row.seed, row.split, row.unet_calls, row.parameters, row.drawn_pictures
        kept.setdefault(key, row)
    return list(kept.values())


def table(experiment: Experiment, rows: list[Row]) -> str:
    """Return the rows as a Markdown table: a line a label and number of U-Net calls, means over seeds."""
    splits = [split for split in SPLITS if any(row.split == split for row in rows)]
    heads = [f"{score.replace('_', ' ')}, {split.replace('_', '-')}" for split in splits for score in SCORES]
    costs = ["parameters", "GMACs"] if experiment.axis == "parameters" else ["U-Net calls"]
    lines = [
        f"| | {' | '.join([*costs, *heads])} |",
        f"|---|{'---:|' * len([*costs, *heads])}",
    ]
    for label in ["teacher", *experiment.specs]:
        of_label = [row for row in rows if row.label == label]
        for calls in sorted({row.unet_calls for row in of_label}, reverse=True):
            same = [row for row in of_label if row.unet_calls == calls]
            cells = [_cell(same, split, score) for split in splits for score in SCORES]
            size = [f"{same[0].parameters:,}", f"{same[0].gmacs:.3f}"]
            cost = size if experiment.axis == "parameters" else [str(calls)]
            lines.append(f"| {label} | {' | '.join([*cost, *cells])} |")
    return "\n".join(lines)


def _cell(rows: list[Row], split: str, score: str) -> str:
    """Return a score's mean over the seeds and the widest of its intervals."""
    having = [row for row in rows if row.split == split and score in row.scores]
    if not having:
        return ""
    value = fmean(row.scores[score] for row in having)
    intervals = [row.intervals[score] for row in having if score in row.intervals]
    if not intervals:
        return f"{value:.3g}"
    low, high = min(low for low, _ in intervals), max(high for _, high in intervals)
    return f"{value:.3g} ({low:.3g} to {high:.3g})"


def ratios(experiment: Experiment, rows: list[Row]) -> str:
    """Return how many times as far a job is as the one it is held against, as a Markdown table.

    A line a comparison and a column a seed; of several seeds a last column is of them all. Of a job that was
    measured at several numbers of steps its own is held against the other's own, which come first.
    """
    distances: dict[tuple[str, int], float] = {}
    for row in rows:
        if row.split == experiment.split:
            distances.setdefault((row.label, row.seed), row.scores[DISTANCE])
    seeds = sorted({row.seed for row in rows})
    several = len(seeds) > 1
    heads = [*(f"seed {seed}" for seed in seeds), *(["all seeds"] if several else [])]
    lines = [f"| | {' | '.join(heads)} |", f"|---|{'---:|' * len(heads)}"]
    for label, other in experiment.compared.items():
        values = [distances[label, seed] / distances[other, seed] for seed in seeds]
        cells = [*(f"{value:.2f}" for value in values), *([_together(values)] if several else [])]
        lines.append(f"| {label} : {other} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _together(values: list[float]) -> str:
    """Return the geometric mean of ratios with its interval by Student's t on their logarithms."""
    logarithms = [math.log(value) for value in values]
    mean = fmean(logarithms)
    quantile = float(t.ppf((1 + CONFIDENCE) / 2, len(values) - 1))
    spread = quantile * stdev(logarithms) / math.sqrt(len(values))
    return f"{math.exp(mean):.2f} ({math.exp(mean - spread):.2f} to {math.exp(mean + spread):.2f})"


def budget(experiment: Experiment, precisions: Mapping[int, str]) -> str:
    """Return the training budget that all jobs of an experiment share, in words.

    Parameters
    ----------
    experiment
        What was asked.
    precisions
        What the jobs of each seed were trained in.
    """
    spec = next(iter(experiment.specs.values()))
    training = spec["training"]
    seeds_in: dict[str, list[str]] = {}
    for seed, precision in precisions.items():
        seeds_in.setdefault(precision, []).append(str(seed))
    trained = [
        f"{precision} ({'seeds' if len(seeds) > 1 else 'seed'} {', '.join(seeds)})"
        for precision, seeds in seeds_in.items()
    ]
    return (
        f"{training['steps']:,} steps of {training['batch_size']} at {training['learning_rate']:g} in "
        f"{' and '.join(trained if len(trained) > 1 else seeds_in)}, "
        f"{spec['evaluation']['samples']} pictures a split"
    )
