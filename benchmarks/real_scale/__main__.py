"""Distil every student of a teacher as large as Stable Diffusion 1.4: ``python -m benchmarks.real_scale``.

The teacher's weights are random, which changes neither speed nor memory. Each student is a whole job of
`core.run` in a process of its own, with the latents of the first one shared by the others. A student that has
been measured on this machine is not measured again; remove ``--work`` to begin anew.
"""

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.progress import track

from benchmarks.real_scale.figures import table
from benchmarks.real_scale.teacher import write_random_teacher
from core.files import write_json
from core.students import PRESETS

ROOT = Path(__file__).parents[2]
BUNDLED = ROOT / "teachers" / "emoji_64" / "weights"
SD14_UNET = ROOT / "tests" / "core" / "sd14_unet_config.json"
SD14_PRESETS = [name for name in PRESETS if name.startswith(("b-", "c-"))]
console = Console()


def main() -> None:
    """Measure the students and print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.real_scale", description=main.__doc__)
    parser.add_argument("--unet-config", type=Path, default=SD14_UNET, help="config of the teacher's U-Net")
    parser.add_argument("--students", nargs="+", default=SD14_PRESETS, metavar="STUDENT")
    parser.add_argument("--steps", type=int, default=200, help="optimiser steps of each student")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--pictures", type=int, default=256, help="pictures that the teacher draws")
    parser.add_argument("--work", type=Path, default=Path("real-scale"), help="where jobs work")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()

    teachers = options.work / "teachers"
    if not (teachers / "random").exists():
        write_random_teacher(teachers / "random", options.unet_config, BUNDLED / "tokenizer")
    results = []
    for student in track(options.students, "students", console=console):
        result = options.work / f"{student}.json"
        if not result.exists():
            spec = job(student, options.steps, options.batch_size, options.pictures)
            write_json(result, measure(spec, options.work, teachers))
        results.append(json.loads(result.read_text()))
    console.print(table(results))
    if options.json:
        write_json(options.json, results)


def job(student: str, steps: int, batch_size: int, pictures: int) -> dict:
    """Return the specification of a job that only trains, in bfloat16."""
    return {
        "teacher": "random",
        "student": student,
        "captions": {"kind": "file", "path": str(BUNDLED / "captions.txt")},
        "drawn": {"count": pictures},
        "training": {
            "steps": steps,
            "batch_size": batch_size,
            "precision": "bfloat16",
            "log_every": max(1, steps // 4),
            "checkpoint_every": steps,
            "sample_every": steps,
        },
        "evaluation": {"samples": 2, "steps": 1, "bootstrap_resamples": 0, "grid_prompts": ["small cat"]},
        "export": {"variants": [], "single_file": False},
    }


def measure(spec: dict, work: Path, teachers: Path) -> dict:
    """Run a job in a process of its own and return what it took; its folder is removed."""
    workdir = work / "job"
    shutil.rmtree(workdir, ignore_errors=True)
    workdir.mkdir(parents=True)
    write_json(workdir / "spec.json", spec)
    command = [
        sys.executable,
        "-m",
        "benchmarks.real_scale.job",
        str(workdir),
        str(work / "cache"),
        str(teachers),
    ]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    figures = json.loads((workdir / "figures.json").read_text())
    shutil.rmtree(workdir)
    return figures


if __name__ == "__main__":
    main()
