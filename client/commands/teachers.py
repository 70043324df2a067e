"""``condenser teachers``: what can be distilled."""

from typing import Annotated

import typer

from client.address import address_of
from client.examples import example
from client.output import write_json, write_table
from client.quantities import millions


def add_to(commands: typer.Typer) -> None:
    """Add the command."""
    commands.command(epilog=example("condenser teachers"))(teachers)


def teachers(
    context: typer.Context, as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False
) -> None:
    """List the teachers, and the student sizes that fit each."""
    with address_of(context).connect() as condenser:
        known = condenser.teachers.list()
    if as_json:
        write_json([teacher.model_dump(mode="json") for teacher in known])
        return
    write_table(
        ["teacher", "family", "parameters", "licence", "students"],
        [
            [
                teacher.id,
                teacher.family,
                millions(teacher.parameters),
                teacher.licence or "not stated",
                " ".join(option.student for option in teacher.students),
            ]
            for teacher in known
        ],
    )
