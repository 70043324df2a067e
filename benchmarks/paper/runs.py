"""Running the jobs of experiments, each once: a job's result is kept under the hash of its specification.

The results that the page of results is made of are part of the repository, so that only what is not there is
run. In which precision is no part of the question and left to the machine; what it took is kept with the
result.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from benchmarks.paper.experiments import WEIGHTS, Experiment
from core.files import replacing, write_json
from core.optimisation import emulates_bfloat16
from core.pipeline import CHECKPOINTS, RESULT_FILE

TEACHERS = WEIGHTS.parent
MEASURED = Path(__file__).parent / "measured"
console = Console()


class RunFailedError(Exception):
    """A job did not finish; its folder and its log say why."""


@dataclass(frozen=True)
class Run:
    """One job of an experiment.

    Attributes
    ----------
    label
        What it is called in the experiment.
    spec
        Its specification, seed included, without the precision.
    """

    label: str
    spec: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The name of its folder and of its result: of its specification alone."""
        return _digest(self.spec)

    @property
    def training(self) -> str:
        """The same for all jobs with the very same training, whatever comes after it."""
        evaluation = {**self.spec["evaluation"], "more_steps": None}
        return _digest({**self.spec, "evaluation": evaluation, "few_step": None, "export": None})

    @property
    def measured(self) -> Path:
        """Where its result is kept."""
        return MEASURED / f"{self.name}.json"

    @property
    def result(self) -> dict[str, Any]:
        """What the job measured."""
        result: dict[str, Any] = self._kept["result"]
        return result

    @property
    def precision(self) -> str:
        """What it was trained in."""
        return str(self._kept["spec"]["training"]["precision"])

    @property
    def _kept(self) -> dict[str, Any]:
        kept: dict[str, Any] = json.loads(self.measured.read_text(encoding="utf-8"))
        return kept


def runs_of(experiment: Experiment, seed: int) -> list[Run]:
    """Return an experiment's jobs with one seed."""
    return [Run(label, {**spec, "seed": seed}) for label, spec in experiment.specs.items()]


def run_all(runs: list[Run], work: Path, processes: int) -> None:
    """Run the jobs that nobody has run before, several side by side.

    A job that was interrupted goes on from its last checkpoint. Of jobs with the same training one does it
    first, and the others begin with its checkpoints. What jobs share, such as latents, lies in one cache.

    Parameters
    ----------
    runs
        The jobs.
    work
        Folder of all jobs' folders.
    processes
        How many at a time; they share the processor's cores.

    Raises
    ------
    RunFailedError
        If a job fails; the others are finished.
    """
    missing = {run.name: run for run in runs if not run.measured.exists()}
    untrained = [run for run in missing.values() if not _trained(run, work).exists()]
    first = {run.training: run for run in reversed(untrained)}
    others = [run for run in missing.values() if run not in first.values()]
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console) as progress, ThreadPoolExecutor(processes) as pool:
        for waiting in (list(reversed(first.values())), others):
            list(pool.map(lambda run: _run(run, work, processes, progress), waiting))


def fastest_precision() -> Literal["float32", "bfloat16"]:
    """Return in what precision this machine trains fastest."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return "float32" if emulates_bfloat16(device) else "bfloat16"


def _run(run: Run, work: Path, processes: int, progress: Progress) -> None:
    workdir, trained = work / run.name, _trained(run, work)
    workdir.mkdir(parents=True, exist_ok=True)
    spec = {**run.spec, "training": {**run.spec["training"], "precision": fastest_precision()}}
    write_json(workdir / "spec.json", spec)
    if trained.exists() and not (workdir / CHECKPOINTS).exists():
        with replacing(workdir / CHECKPOINTS) as temporary:
            shutil.copytree(trained, temporary)
    _run_core(run, workdir, work / "cache", processes, progress)
    result = json.loads((workdir / RESULT_FILE).read_text(encoding="utf-8"))
    write_json(run.measured, {"spec": spec, "result": result})
    if not run.spec.get("few_step") and not trained.exists():
        with replacing(trained) as temporary:
            shutil.copytree(workdir / CHECKPOINTS, temporary)


def _run_core(run: Run, workdir: Path, cache: Path, processes: int, progress: Progress) -> None:
    # A job whose conductor was killed would train on unseen, beside the one that takes it up again.
    command = [sys.executable, "-m", "worker.launch", str(os.getpid())]
    command += [sys.executable, "-m", "core.run", "--spec", str(workdir / "spec.json")]
    command += ["--workdir", str(workdir), "--cache", str(cache), "--teachers", str(TEACHERS)]
    threads = str(max(1, len(os.sched_getaffinity(0)) // processes))
    bar = progress.add_task(run.label, total=None)
    with (workdir / "log.txt").open("ab") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, env=os.environ | {"OMP_NUM_THREADS": threads}
        )
        try:
            while process.poll() is None:
                _show(_last_progress(workdir / "events.jsonl"), run, progress, bar)
                try:
                    process.wait(timeout=1)
                except subprocess.TimeoutExpired:
                    continue
        finally:
            process.terminate()
            process.wait()
            progress.remove_task(bar)
    if process.returncode:
        raise RunFailedError(f"{run.label} failed; see {workdir / 'log.txt'}")
    console.print(f"{run.label}, seed {run.spec['seed']}: {workdir}")


def _show(event: Mapping[str, Any] | None, run: Run, progress: Progress, bar: Any) -> None:
    if event:
        description = f"{run.label}: {event['phase']}"
        progress.update(bar, description=description, completed=event["done"], total=event["total"])


def _last_progress(events: Path) -> dict[str, Any] | None:
    """Return what the job last said of its progress."""
    if not events.exists():
        return None
    complete_lines = events.read_text(encoding="utf-8").rpartition("\n")[0].splitlines()
    parsed = (json.loads(line) for line in reversed(complete_lines))
    return next((event for event in parsed if event["type"] == "progress"), None)


def _trained(run: Run, work: Path) -> Path:
    """Where the last checkpoints of a training are kept for the jobs that begin with it."""
    return work / "trained" / run.training


def _digest(spec: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()[:16]
