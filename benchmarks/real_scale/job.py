"""One job, measured from inside: ``python -m benchmarks.real_scale.job WORKDIR CACHE TEACHERS``."""

import json
import sys
from pathlib import Path

import torch

from benchmarks.real_scale.figures import figures_of
from core.files import write_json
from core.memory_use import peak_memory_bytes
from core.probe import device_name
from core.registry import find_teacher
from core.run import main as run_core
from core.spec import DistillationSpec


def main() -> int:
    """Run the job in ``WORKDIR/spec.json`` and write ``WORKDIR/figures.json``."""
    workdir, cache, teachers = map(Path, sys.argv[1:])
    spec_file = workdir / "spec.json"
    paths = ["--spec", spec_file, "--workdir", workdir, "--cache", cache, "--teachers", teachers]
    if status := run_core(list(map(str, paths))):
        return status
    spec = DistillationSpec.model_validate_json(spec_file.read_bytes())
    events = [json.loads(line) for line in (workdir / "events.jsonl").read_text().splitlines()]
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    figures = figures_of(
        spec,
        find_teacher(spec.teacher, [teachers]),
        events,
        device=device_name(device),
        peak_bytes=peak_memory_bytes(device),
    )
    write_json(workdir / "figures.json", figures)
    return 0


if __name__ == "__main__":
    sys.exit(main())
