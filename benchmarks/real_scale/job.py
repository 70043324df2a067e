"""One job, measured from inside: ``python -m benchmarks.real_scale.job WORKDIR CACHE TEACHERS``."""

import json
import sys
from pathlib import Path

import torch

from benchmarks.real_scale.figures import figures_of
from core.files import write_json
from core.probe import device_name, resident_bytes
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
    on_cuda = torch.cuda.is_available()
    figures = figures_of(
        spec,
        find_teacher(spec.teacher, [teachers]),
        events,
        device=device_name(torch.device("cuda" if on_cuda else "cpu")),
        peak_bytes=torch.cuda.max_memory_allocated() if on_cuda else resident_bytes(),
    )
    write_json(workdir / "figures.json", figures)
    return 0


if __name__ == "__main__":
    sys.exit(main())
