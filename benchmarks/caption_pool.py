"""Memory and time of caption pools of several sizes: ``python -m benchmarks.caption_pool``.

For each size a pool is prepared as a job prepares it, from a text file, and opened by a process of its own,
which draws batches of captions uniformly, as random conditioning does. What is reported is measured in that
process, in processor time. A process that only imports the code already takes most of the memory, so compare
the sizes.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from core.captions import open_captions, prepare_captions
from core.spec import DistillationSpec

BATCH = 256
BATCHES = 2_000
WARM_UP = 20
MEBIBYTE = 2**20


def main() -> None:
    """Measure every size and write a table."""
    parser = argparse.ArgumentParser(description="Measure caption pools.")
    parser.add_argument(
        "--counts", type=int, nargs="+", default=[5_000, 5_000_000], help="captions in each pool"
    )
    parser.add_argument("--json", type=Path, help="also write the figures here")
    parser.add_argument("--step", nargs=2, metavar=("WHAT", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        print(json.dumps(STEPS[options.step[0]](Path(options.step[1]))))
        return
    rows = [measure(count) for count in options.counts]
    print("| " + " | ".join(rows[0]) + " |")
    print("|" + "---:|" * len(rows[0]))
    for row in rows:
        print("| " + " | ".join(f"{value:,.1f}".removesuffix(".0") for value in row.values()) + " |")
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")


def measure(count: int) -> dict[str, float]:
    """Prepare a pool of that many captions and draw from it, each in a process of its own."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with (folder / "captions.txt").open("w") as file:
            file.writelines(
                f"a photograph of object {number} beside another on a table\n" for number in range(count)
            )
        prepared, drawn = (in_a_process(step, folder) for step in ("prepare", "draw"))
        size = sum(file.stat().st_size for file in (folder / "set").iterdir())
    return {"captions": count, "MiB on disk": size / MEBIBYTE, **prepared, **drawn}


def in_a_process(step: str, folder: Path) -> dict[str, float]:
    """Run one step of a measurement in a new process."""
    command = [sys.executable, "-m", "benchmarks.caption_pool", "--step", step, str(folder)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def prepare(folder: Path) -> dict[str, float]:
    """Prepare the pool; return how long it took, and the most memory it took at any moment."""
    source = {"kind": "file", "path": str(folder / "captions.txt")}
    spec = DistillationSpec.model_validate({"teacher": "any", "captions": source})
    started = time.process_time()
    prepare_captions(spec, folder, [])
    seconds = time.process_time() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"CPU seconds to prepare": seconds, "MiB at most while preparing": peak}


def draw(folder: Path) -> dict[str, float]:
    """Draw captions; return the resident memory once open and after drawing, and the time of one caption."""
    captions = open_captions(folder)
    rng = np.random.default_rng(0)
    batches = rng.integers(len(captions), size=(WARM_UP + BATCHES, BATCH))
    for batch in batches[:WARM_UP]:
        captions.texts(batch)
    opened = resident_memory()
    started = time.process_time()
    for batch in batches[WARM_UP:]:
        captions.texts(batch)
    seconds = time.process_time() - started
    return {
        "MiB when open": opened,
        "MiB after drawing": resident_memory(),
        "CPU µs per caption drawn": 1e6 * seconds / (BATCHES * BATCH),
    }


def resident_memory() -> float:
    """Return this process's resident memory, files that it maps included, in MiB; Linux only."""
    status = Path("/proc/self/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) / 1024


STEPS = {"prepare": prepare, "draw": draw}

if __name__ == "__main__":
    main()
