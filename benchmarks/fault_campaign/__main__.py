"""``python -m benchmarks.fault_campaign --seed N``: two hundred faults over fifty jobs and three workers."""

import argparse
import random
import shutil
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from benchmarks.fault_campaign.campaign import Campaign, Report
from benchmarks.fault_campaign.service import Service
from tests.api.conftest import write_teacher


def main() -> int:
    """Run a campaign and print what it came to; the exit status says whether anything was wrong."""
    options = _parse()
    console = Console()
    console.print(
        f"seed {options.seed}: {options.faults} faults, {options.jobs} jobs, {options.workers} workers"
    )
    folder = Path(tempfile.mkdtemp(prefix="condenser-campaign-"))
    service = Service(
        folder, write_teacher(folder / "teachers"), workers=options.workers, step_seconds=options.step_seconds
    )
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("faults"), TimeElapsedColumn())
    try:
        with Progress(*columns, console=console) as bar:
            task = bar.add_task("faults", total=options.faults)
            report = Campaign(
                service,
                seed=options.seed,
                jobs=options.jobs,
                faults=options.faults,
                progress=lambda done: bar.update(task, completed=done),
            ).run()
    finally:
        service.stop()
    _print(report, console)
    if report.wrong:
        console.print(f"what the processes said is in {folder}")
        return 1
    shutil.rmtree(folder)
    return 0


def _print(report: Report, console: Console) -> None:
    table = Table("fault", "times", title="What was done")
    for name, times in sorted(report.faults.items()):
        table.add_row(name, str(times))
    console.print(table)
    ended = ", ".join(f"{count} {status}" for status, count in sorted(report.statuses.items()))
    console.print(f"jobs: {ended}; {report.attempts} attempts; {report.seconds:.0f} s")
    overdue = f"{report.overdue_seconds:.2f} s, in {report.looks} looks"
    console.print(f"longest that a job was called running after its lease: {overdue}")
    for complaint in report.wrong:
        console.print(f"[red]wrong:[/red] {complaint}")
    console.print("nothing is wrong" if not report.wrong else f"{len(report.wrong)} things are wrong")


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fault_campaign", description=__doc__)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    parser.add_argument("--jobs", type=int, default=50)
    parser.add_argument("--faults", type=int, default=200)
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--step-seconds", type=float, default=2.0, help="of each of a trainer's six steps")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
