"""Run experiments and write what they found: ``python -m benchmarks.paper EXPERIMENT... [--seeds N]``.

Writes for each experiment ``docs/results/EXPERIMENT.json`` and ``.svg``, and its section of
``docs/results.md``. Jobs whose results are kept are not run again; an interrupted one goes on.
"""

import argparse
import json
import os
from pathlib import Path

from benchmarks.paper.experiments import Experiment, every_experiment
from benchmarks.paper.findings import Row, budget, distinct, ratios, rows_of, table
from benchmarks.paper.plots import plot
from benchmarks.paper.runs import run_all, runs_of
from core.files import write_json

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "results.md"
RESULTS = ROOT / "docs" / "results"
READINGS = Path(__file__).parent / "readings"  # what people make of the figures
INTRODUCTION = """# Results

What each part of the method does, measured on the bundled teacher. Every section names the command that made
it. What each job measured is kept in `benchmarks/paper/measured`, so that a second call only writes; remove a
file there to run its job again.

Distances are between pictures of the student and other pictures of the teacher, of the same captions, in the
features of the teacher's own CLIP. The teacher's row is its distance to itself, the least there is to reach.
Of several seeds the tables show the mean. In brackets: 95 % bootstrap intervals over the pictures, of several
seeds the widest reach of theirs; of ratios the 95 % interval over the seeds (Student's t on logarithms).

Speed and memory at the size of Stable Diffusion 1.4 are not here yet: they want a GPU, on which
`python -m benchmarks.real_scale` measures them.
"""


def main() -> None:
    """Run the chosen experiments, all by default."""
    experiments = every_experiment()
    parser = argparse.ArgumentParser(description="Run experiments on the bundled teacher.")
    parser.add_argument("names", nargs="*", metavar="EXPERIMENT", help=f"of {', '.join(experiments)}")
    parser.add_argument("--seeds", type=int, default=1, help="how many seeds, from 0 on")
    parser.add_argument("--work", type=Path, default=Path(__file__).parent / "work", help="where jobs work")
    parser.add_argument("--processes", type=int, default=len(os.sched_getaffinity(0)), help="jobs at a time")
    options = parser.parse_args()
    if unknown := set(options.names) - set(experiments):
        parser.error(f"unknown experiment {', '.join(sorted(unknown))}; choose of {', '.join(experiments)}")
    for name in options.names or experiments:
        conduct(experiments[name], options.seeds, options.work, options.processes)
        write_page(experiments)


def conduct(experiment: Experiment, seeds: int, work: Path, processes: int) -> None:
    """Run an experiment's jobs and write its results file and its plot."""
    by_seed = [runs_of(experiment, seed) for seed in range(seeds)]
    # Jobs of one seed after each other: the later ones find the latents and the judgements of the first.
    runs = [run for same in zip(*by_seed, strict=True) for run in same]
    run_all(runs, work, processes)
    rows: list[Row] = []
    for run in runs:
        rows += rows_of(run.label, run.spec["seed"], run.result)
    rows = distinct(rows)
    RESULTS.mkdir(exist_ok=True)
    plot(experiment, rows, RESULTS / f"{experiment.name}.svg")
    write_json(
        RESULTS / f"{experiment.name}.json",
        {
            "command": f"python -m benchmarks.paper {experiment.name} --seeds {seeds}",
            "budget": budget(experiment, {run.spec["seed"]: run.precision for run in runs}),
            "rows": [row.as_json() for row in rows],
        },
    )


def write_page(experiments: dict[str, Experiment]) -> None:
    """Write the page of all results there are."""
    sections = [INTRODUCTION]
    for name, experiment in experiments.items():
        path = RESULTS / f"{name}.json"
        if path.exists():
            results = json.loads(path.read_text(encoding="utf-8"))
            rows = [Row(**row) for row in results["rows"]]
            sections.append(
                f"## {experiment.question}\n\n`{results['command']}`: {results['budget']}.\n\n"
                f"![{experiment.question}](results/{name}.svg)\n\n{table(experiment, rows)}\n"
            )
            if experiment.compared:
                captions = experiment.split.replace("_", "-")
                sections.append(
                    f"The distance on {captions} captions, as a multiple of that of the job it is held "
                    f"against:\n\n{ratios(experiment, rows)}\n"
                )
            reading = READINGS / f"{name}.md"
            if reading.exists():
                sections.append(reading.read_text(encoding="utf-8"))
    PAGE.write_text("\n".join(sections), encoding="utf-8")


if __name__ == "__main__":
    main()
