"""``condenser compare``: the students of one teacher, side by side."""

from typing import Annotated

import typer

from client.address import address_of
from client.examples import example
from client.models import ComparedStudent, Measured
from client.output import write_json, write_table
from client.quantities import millions

COLUMNS = ["model", "job", "parameters", "GMACs", "s/picture", "Fréchet drawn", "Fréchet text-only"]


def add_to(commands: typer.Typer) -> None:
    """Add the command."""
    commands.command(epilog=example("condenser compare emoji-64 --limit 5"))(compare)


def compare(
    context: typer.Context,
    teacher: Annotated[str, typer.Argument(help="Id of the teacher.")],
    limit: Annotated[int, typer.Option(min=1, help="At most so many students.")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Compare the students of a teacher, the newest first, each with the teacher as its job measured it."""
    with address_of(context).connect() as condenser:
        students = condenser.compare(teacher, limit=limit)
    if as_json:
        write_json([student.model_dump(mode="json") for student in students])
        return
    write_table(COLUMNS, [row for student in students for row in _rows(teacher, student)])


def _rows(teacher: str, student: ComparedStudent) -> list[list[str]]:
    return [
        [student.name, student.job_id, *_figures(student.student)],
        [teacher, student.job_id, *_figures(student.teacher)],
    ]


def _figures(model: Measured) -> list[str]:
    distances = [model.scores.get(split, {}).get("frechet_distance") for split in ("drawn", "text_only")]
    return [
        "" if model.parameters is None else millions(model.parameters),
        *("" if figure is None else f"{figure:.3g}" for figure in (model.gmacs, model.seconds_per_picture)),
        *("" if distance is None else f"{distance:.3g}" for distance in distances),
    ]
