"""``condenser verify``: whether a downloaded student is whole and loads."""

import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer


def add_to(commands: typer.Typer) -> None:
    """Add the command."""
    commands.command()(verify)


def verify(
    directory: Annotated[
        Path, typer.Argument(help="The student's folder.", exists=True, file_okay=False, show_default=False)
    ],
) -> None:
    """Compare a student with its manifest, file by file, and load it with diffusers."""
    # A process of its own: this one has no torch in it.
    ended = subprocess.run([sys.executable, "-m", "core.verify", str(directory)], check=False)  # noqa: S603
    raise typer.Exit(ended.returncode)
