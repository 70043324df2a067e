"""``condenser download``: the student of a job that has succeeded."""

from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TransferSpeedColumn

from client.address import address_of
from client.commands.jobs import AsJson
from client.examples import JOB, example
from client.jobs import Job
from client.output import messages, write_json, write_line

Format = Literal["folder", "archive", "unet", "single-file"]
SUFFIXES = {"folder": "", "archive": ".zip", "unet": "-unet.safetensors", "single-file": ".safetensors"}


def add_to(commands: typer.Typer) -> None:
    """Add the command."""
    commands.command(
        epilog=example(
            f"condenser download {JOB} student", f"condenser download {JOB} unet.safetensors --format unet"
        )
    )(download)


def download(
    context: typer.Context,
    job_id: Annotated[str, typer.Argument(help="Id of the job.")],
    target: Annotated[
        Path | None,
        typer.Argument(help="Where it goes; named after the job by default.", show_default=False),
    ] = None,
    weights_format: Annotated[
        Format,
        typer.Option(
            "--format",
            help="folder: unpacked, for diffusers. As one file: archive, a ZIP of that folder; unet, "
            "its U-Net; single-file, the U-Net under the original names.",
        ),
    ] = "folder",
    as_json: AsJson = False,
) -> None:
    """Fetch a job's student, as a folder that diffusers loads or as one file; it goes on if interrupted."""
    with address_of(context).connect() as condenser:
        job = condenser.jobs.get(job_id)
        target = target or Path(f"student-{job_id}{SUFFIXES[weights_format]}")
        place = fetch(job, target, weights_format)
    if as_json:
        write_json({"id": job_id, "format": weights_format, "path": str(place)})
        return
    write_line(str(place))


def fetch(job: Job, target: Path, weights_format: Format = "folder") -> Path:
    """Fetch a student with a bar on the terminal."""
    columns = (BarColumn(bar_width=30), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=messages, disable=not messages.is_terminal) as bar:
        task = bar.add_task("", total=None)

        def show(have: int, total: int) -> None:
            bar.update(task, completed=have, total=total)

        if weights_format == "folder":
            return job.download(target, show)
        return job.download_weights(target, weights_format, show)
