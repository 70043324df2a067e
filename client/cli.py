"""The ``condenser`` command: its general options, its sub-commands, and what an error looks like."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from client.address import DEFAULT_DATA_DIR, Address
from client.commands import (
    captions,
    compare,
    demo,
    doctor,
    download,
    generate,
    jobs,
    keys,
    moves,
    stack,
    submit,
    teachers,
    verify,
    watch,
    workers,
)
from client.errors import ClientError
from client.output import tell

_commands = typer.Typer(
    name="condenser",
    help="Compress text-to-image diffusion models by distillation.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


@_commands.callback()
def _general_options(
    context: typer.Context,
    url: Annotated[
        str | None, typer.Option(envvar="CONDENSER_URL", help="The service; else the embedded one is used.")
    ] = None,
    api_key: Annotated[
        str | None,
        typer.Option(
            envvar="CONDENSER_API_KEY",
            show_default=False,
            help="Who asks; else the embedded service's own key is used. Other users of this machine may see "
            "what stands on a command line, so prefer the variable.",
        ),
    ] = None,
    data_dir: Annotated[
        Path, typer.Option(envvar="CONDENSER_DATA_DIR", help="Folder of the embedded stack.")
    ] = DEFAULT_DATA_DIR,
) -> None:
    context.obj = Address(url, api_key, data_dir)


for module in (
    submit,
    captions,
    watch,
    jobs,
    moves,
    download,
    compare,
    generate,
    verify,
    teachers,
    workers,
    keys,
    stack,
    demo,
    doctor,
):
    module.add_to(_commands)


def app() -> None:
    """Run the command; errors that have words for a person are told in those words."""
    try:
        _commands()
    except (ClientError, OSError) as error:  # also a disk that is full, a folder that cannot be written to
        tell(f"condenser: {error}")
        sys.exit(1)
