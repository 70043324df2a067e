"""``condenser captions``: upload, list and delete files of captions; and how a job is given its captions."""

import re
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

from client.address import address_of
from client.condenser import Condenser
from client.examples import example
from client.models import CaptionFile
from client.output import messages, tell, write_json, write_line, write_table

FILE = "019ab2c4-81d0-7b52-8f6e-3c1d5a7e9b24"
INLINE_BYTES = 2**20
INLINE_CAPTIONS = 10_000
INLINE_CHARACTERS = 1_000
_FILE_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")

FileId = Annotated[str, typer.Argument(help="Id of the file.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def add_to(commands: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(help="Files of captions that jobs read.", no_args_is_help=True)
    group.command(epilog=example("condenser captions upload captions.jsonl.gz"))(upload)
    group.command("list", epilog=example("condenser captions list --limit 5"))(list_files)
    group.command(epilog=example(f"condenser captions delete {FILE}"))(delete)
    commands.add_typer(group, name="captions")


def upload(
    context: typer.Context,
    file: Annotated[
        Path, typer.Argument(help="Text, CSV, TSV, JSON Lines or Parquet.", exists=True, dir_okay=False)
    ],
    name: Annotated[str | None, typer.Option(help="Another name; its ending says how it is read.")] = None,
    as_json: AsJson = False,
) -> None:
    """Upload a file of captions and print its id."""
    with address_of(context).connect() as condenser:
        stored = upload_file(condenser, file, name)
    if as_json:
        write_json(stored.model_dump(mode="json"))
        return
    write_line(stored.id)
    tell(f"{stored.name}: {stored.size:,} bytes, read as {stored.format}")


def list_files(
    context: typer.Context,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 20,
    as_json: AsJson = False,
) -> None:
    """List the files of captions, the newest first."""
    with address_of(context).connect() as condenser:
        files = condenser.captions.list(limit)
    if as_json:
        write_json([file.model_dump(mode="json") for file in files])
        return
    rows = [
        [file.id, file.name, file.format, str(file.size), f"{file.created_at:%Y-%m-%d %H:%M}"]
        for file in files
    ]
    write_table(["file", "name", "format", "bytes", "uploaded"], rows)


def delete(context: typer.Context, file_id: FileId, as_json: AsJson = False) -> None:
    """Delete a file of captions that no unfinished job reads."""
    with address_of(context).connect() as condenser:
        condenser.captions.delete(file_id)
    if as_json:
        write_json({"id": file_id, "deleted": True})


def upload_file(condenser: Condenser, file: Path, name: str | None = None) -> CaptionFile:
    """Upload a file and show how far it is."""
    columns = (
        "{task.description}",
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=messages, transient=True) as bar:
        task = bar.add_task(f"uploading {file.name}", total=file.stat().st_size)
        return condenser.captions.upload(
            file, name, on_progress=lambda sent, _: bar.update(task, completed=sent)
        )


def captions_of(condenser: Condenser, given: str) -> dict[str, Any]:
    """Make a job's ``captions`` from what was given on the command line.

    Parameters
    ----------
    condenser
        The service. A local file that is too large for the request itself, or no plain text, is uploaded.
    given
        A local file, ``s3://bucket/key``, or the id of an uploaded file.
    """
    if given.startswith("s3://"):
        return {"kind": "s3", "uri": given}
    file = Path(given)
    if not file.exists() and _FILE_ID.fullmatch(given):
        return {"kind": "uploaded", "id": given}
    if not file.is_file():
        raise typer.BadParameter(f"{given} is no file, no s3:// reference and no id of an uploaded file")
    texts = _few_lines(file)
    if texts is not None:
        return {"kind": "inline", "texts": texts}
    return upload_file(condenser, file).spec


def _few_lines(file: Path) -> list[str] | None:
    """Return the captions of a small text file; None for any other file, also one that is no UTF-8."""
    if file.suffix not in {"", ".txt"} or file.stat().st_size > INLINE_BYTES:
        return None
    try:
        with file.open(encoding="utf-8-sig") as lines:
            texts = [line.strip() for line in lines if line.strip()]
    except UnicodeDecodeError:
        return None
    fits = 0 < len(texts) <= INLINE_CAPTIONS and max(map(len, texts)) <= INLINE_CHARACTERS
    return texts if fits else None
