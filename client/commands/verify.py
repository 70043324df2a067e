"""``condenser verify``: whether a downloaded student is whole and loads."""

import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from client.commands.jobs import AsJson
from client.examples import example
from client.output import write_json


def add_to(commands: typer.Typer) -> None:
    """Add the command."""
    commands.command(epilog=example("condenser verify student"))(verify)


def verify(
    directory: Annotated[
        Path, typer.Argument(help="The student's folder.", exists=True, file_okay=False, show_default=False)
    ],
    as_json: AsJson = False,
) -> None:
    """Compare a student with its manifest, file by file, and load it with diffusers."""
    # A process of its own: this one has no torch in it.
    command = [sys.executable, "-m", "core.verify", str(directory)]
    ended = subprocess.run(command, stdout=subprocess.PIPE if as_json else None, text=True, check=False)  # noqa: S603
    if as_json:
        write_json({"sound": ended.returncode == 0, "said": ended.stdout.splitlines()})
    raise typer.Exit(ended.returncode)
