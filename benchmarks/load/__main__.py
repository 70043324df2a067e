"""Measure what the service bears: ``python -m benchmarks.load``.

Starts a stack of its own in a temporary folder and puts it under shares of the load, the whole, the whole
again with a second API process, and the whole once more with its database filled. Then it compares a training
with and without supervision.
Everything stays on loopback. Writes ``docs/results/load.json`` and ``docs/load.md``.
"""

import argparse
import json
import os
import platform
import signal
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil
import uvloop

from benchmarks.load import bulk, supervising
from benchmarks.load.clients import Observations, Plan, put_under_load
from benchmarks.load.outcome import await_jobs, summary
from benchmarks.load.page import write_page
from benchmarks.load.sampling import Sampling
from benchmarks.load.service import REPOSITORY, Service, api_process, serving, started
from core.files import write_json

RESULT = REPOSITORY / "docs" / "results" / "load.json"
PAGE = REPOSITORY / "docs" / "load.md"
SHARES = (0.125, 0.25, 0.5)


def main() -> None:
    """Run the phases that were asked for and write what they found."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.load", description="Measure what the service bears."
    )
    parser.add_argument("--seconds", type=float, default=60, help="length of each load")
    parser.add_argument("--jobs", type=int, default=1_000, help="jobs submitted in that time")
    parser.add_argument(
        "--shares",
        type=float,
        nargs="*",
        default=SHARES,
        help="shares of the load to begin with; none to skip",
    )
    parser.add_argument("--filled-jobs", type=int, default=100_000, help="jobs in the filled database")
    parser.add_argument("--filled-points", type=int, default=10_000_000, help="metric points in it")
    parser.add_argument("--steps", type=int, default=400, help="steps of each training; 0 for none")
    parser.add_argument("--pairs", type=int, default=2, help="trainings with and without supervision")
    parser.add_argument(
        "--only-supervising", action="store_true", help="train alone, and keep what was found of the loads"
    )
    parser.add_argument("--dry", action="store_true", help="print what is found, and write nothing")
    parser.add_argument(
        "--url", help="only put this service on loopback under load; jobs need a worker there"
    )
    options = parser.parse_args()
    signal.signal(
        signal.SIGTERM, lambda *_: sys.exit("ended before its time")
    )  # servers are stopped on the way
    plan = Plan(jobs=options.jobs, seconds=options.seconds)
    if options.url:
        seen = uvloop.run(put_under_load([options.url], plan, os.environ.get("CONDENSER_API_KEY")))
        print(summary(seen))
        raise SystemExit(1 if seen.errors else 0)
    began, load_before = time.monotonic(), os.getloadavg()[2]
    with tempfile.TemporaryDirectory(prefix="condenser-load-") as folder:
        if options.only_supervising:
            found = json.loads(RESULT.read_text(encoding="utf-8"))
            with serving(Path(folder) / "data") as service:
                found["supervising"] = _supervising(service, Path(folder), options)
        else:
            found = measure(Path(folder), plan, options)
            machine = _machine() | {"load_before": round(load_before, 1)}
            found |= {"machine": machine, "seconds": round(time.monotonic() - began), "plan": asdict(plan)}
    if not options.dry:
        write_json(RESULT, found)
        write_page(PAGE, found)
    print(json.dumps(found, indent=1))
    if any(found[phase]["errors"] for phase in ("empty", "filled") if phase in found):
        raise SystemExit("there were errors")


def measure(folder: Path, plan: Plan, options: argparse.Namespace) -> dict[str, Any]:
    """Make all measurements on one stack."""
    found: dict[str, Any] = {}
    with serving(folder / "data") as service:
        mover = [sys.executable, "-m", "benchmarks.load.mover"]
        with started(mover, service.environment, folder / "mover.log") as process:
            found["shares"] = [
                {
                    "share": share,
                    **_under_load(service, plan.lightened(share), psutil.Process(process.pid))[0],
                }
                for share in options.shares
            ]
            found["empty"], template = _under_load(service, plan, psutil.Process(process.pid))
            with api_process(folder / "data", "second-api", service.environment) as second:
                found["spread"], _ = _under_load(service, plan, psutil.Process(process.pid), second)
            if options.filled_jobs:
                _tell(f"filling: {options.filled_jobs:,} jobs, {options.filled_points:,} points")
                began = time.monotonic()
                url = service.environment["DATABASE_URL"]
                bulk.fill(url, template, jobs=options.filled_jobs, points=options.filled_points)
                found |= {"filled_jobs": options.filled_jobs, "filled_points": options.filled_points}
                found["fill_seconds"] = time.monotonic() - began
                found["filled"], _ = _under_load(service, plan, psutil.Process(process.pid))
        if options.steps:
            found["supervising"] = _supervising(service, folder, options)
    return found


def _supervising(service: Service, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    _tell("training with and without supervision")
    return supervising.compare(
        service.environment, folder / "training", steps=options.steps, pairs=options.pairs
    )


def _under_load(
    service: Service, plan: Plan, mover: psutil.Process, second: tuple[str, psutil.Process] | None = None
) -> tuple[dict[str, Any], str]:
    """Put a load on the API process, or on it and a second one; what was found, and the id of a job."""
    _tell(f"load: {plan.jobs:,} jobs in {plan.seconds:.0f} s")
    watched: Mapping[str, psutil.Process] = {
        "api": service.api,
        "postgres": service.postgres,
        "clients": psutil.Process(),
        "mover": mover,
    }
    urls = [service.url]
    if second is not None:
        urls.append(second[0])
        watched = {**watched, "second api": second[1]}
    with Sampling(watched) as sampling:
        seen: Observations = uvloop.run(put_under_load(urls, plan, service.api_key))
    lost = await_jobs(service, seen.job_ids)
    found = summary(seen) | {"lost": lost, **sampling.found()}
    _tell(_line(found))
    return found, seen.job_ids[0]


def _line(found: Mapping[str, Any]) -> str:
    figures = ", ".join(f"{name} p99 {value['p99_ms']:.0f} ms" for name, value in found["latency"].items())
    return f"{figures}; {len(found['errors'])} errors, {found['lost']} lost"


def _machine() -> dict[str, Any]:
    memory = psutil.virtual_memory().total / 2**30
    return {
        "processors": len(os.sched_getaffinity(0)),
        "memory_gib": round(memory),
        "python": platform.python_version(),
    }


def _tell(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
