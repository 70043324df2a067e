"""Running the jobs of an experiment, each once: a job's folder is named after its specification."""

import hashlib
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.paper.experiments import WEIGHTS
from core.files import write_json
from core.pipeline import RESULT_FILE

TEACHERS = WEIGHTS.parent
console = Console()


class RunFailedError(Exception):
    """A job did not finish; its folder and its log say why."""


def run(label: str, spec: Mapping[str, Any], seed: int, work: Path) -> dict[str, Any]:
    """Return a job's result, and run it first unless an earlier call has finished it.

    A job that was interrupted goes on from its last checkpoint. Latents are shared between all jobs.

    Parameters
    ----------
    label
        What to call it on the screen.
    spec
        Its specification, less the seed.
    seed
        The job's seed.
    work
        Folder of all jobs' folders.

    Raises
    ------
    RunFailedError
        If the job fails.
    """
    seeded = {**spec, "seed": seed}
    digest = hashlib.sha256(json.dumps(seeded, sort_keys=True).encode()).hexdigest()
    workdir = work / digest[:16]
    workdir.mkdir(parents=True, exist_ok=True)
    if not (workdir / RESULT_FILE).exists():
        write_json(workdir / "spec.json", seeded)
        console.print(f"{label}, seed {seed}: {workdir}")
        _run_core(workdir, work / "cache")
    result: dict[str, Any] = json.loads((workdir / RESULT_FILE).read_text(encoding="utf-8"))
    return result


def _run_core(workdir: Path, cache: Path) -> None:
    command = [sys.executable, "-m", "core.run", "--spec", str(workdir / "spec.json")]
    command += ["--workdir", str(workdir), "--cache", str(cache), "--teachers", str(TEACHERS)]
    with (workdir / "log.txt").open("ab") as log, console.status("") as status:
        process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            while process.poll() is None:
                status.update(_last_progress(workdir / "events.jsonl"))
                try:
                    process.wait(timeout=1)
                except subprocess.TimeoutExpired:
                    continue
        finally:
            process.terminate()
            process.wait()
    if process.returncode:
        raise RunFailedError(f"the job failed; see {workdir / 'log.txt'}")


def _last_progress(events: Path) -> str:
    """Return what the job last said of its progress."""
    if not events.exists():
        return "starting"
    complete_lines = events.read_text(encoding="utf-8").rpartition("\n")[0].splitlines()
    for line in reversed(complete_lines):
        event = json.loads(line)
        if event["type"] == "progress":
            return f"{event['phase']} {event['done']}/{event['total']}"
    return "starting"
