"""``condenser download``: the student of a job that has succeeded."""

from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TransferSpeedColumn

from client.address import address_of
from client.jobs import Job
from client.output import messages, write_line


def add_to(commands: typer.Typer) -> None:
    """Add the command."""
    commands.command()(download)


def download(
    context: typer.Context,
    job_id: Annotated[str, typer.Argument(help="Id of the job.")],
    directory: Annotated[
        Path | None, typer.Argument(help="Where the student goes; student-ID by default.", show_default=False)
    ] = None,
) -> None:
    """Fetch a job's student into a folder that diffusers loads; an interrupted download goes on."""
    with address_of(context).connect() as condenser:
        job = condenser.jobs.get(job_id)
        write_line(str(fetch(job, directory or Path(f"student-{job_id}"))))


def fetch(job: Job, directory: Path) -> Path:
    """Fetch a student with a bar on the terminal."""
    columns = (BarColumn(bar_width=30), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=messages, disable=not messages.is_terminal) as bar:
        task = bar.add_task("", total=None)
        return job.download(
            directory, on_progress=lambda have, total: bar.update(task, completed=have, total=total)
        )
