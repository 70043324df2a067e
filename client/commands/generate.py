"""``condenser generate``: a picture by a job's teacher and one by its student, from the same seed."""

import contextlib
from pathlib import Path
from typing import Annotated

import typer

from client.address import address_of
from client.errors import ConflictError
from client.generations import Generation
from client.models import DrawnPicture
from client.output import tell, write_json, write_table

EXAMPLE = (
    'Example: condenser generate 019ab2c4-7f1e-7c3a-9d52-0b6a4be1d9aa "red apple" --seed 7 --out apple.png'
)


def add_to(commands: typer.Typer) -> None:
    """Add the command."""
    commands.command(epilog=EXAMPLE)(generate)


def generate(
    context: typer.Context,
    job_id: Annotated[str, typer.Argument(help="Id of a job that has succeeded.")],
    prompt: Annotated[str, typer.Argument(help="What to draw.")],
    out: Annotated[
        Path,
        typer.Option(
            metavar="FILE.png",
            help="Where the pictures go: with x.png the teacher's to x-teacher.png and the student's to "
            "x-student.png; a single model's to x.png itself.",
        ),
    ] = Path("generated.png"),
    seed: Annotated[int | None, typer.Option(min=0, help="Of the noise; by chance if left out.")] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Sampler steps; as each model was evaluated by default.")
    ] = None,
    guidance_scale: Annotated[
        float | None, typer.Option("--guidance", min=1, help="Guidance, 1 for none; as evaluated by default.")
    ] = None,
    only: Annotated[str | None, typer.Option(metavar="teacher|student", help="Only this model.")] = None,
    timeout: Annotated[float | None, typer.Option(metavar="SECONDS", help="Give up after so long.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the generation as JSON.")] = False,
) -> None:
    """Let teacher and student draw a prompt from the same seed, and fetch the pictures. Ctrl-C cancels it."""
    if only not in (None, "teacher", "student"):
        raise typer.BadParameter(f"{only} is neither teacher nor student", param_hint="--only")
    with address_of(context).connect() as condenser:
        generation = condenser.generate(
            job_id,
            prompt,
            seed=seed,
            steps=steps,
            guidance_scale=guidance_scale,
            models=None if only is None else [{"model": only}],
            wait=False,
        )
        try:
            generation.wait(_Teller(), timeout)
        except KeyboardInterrupt:
            with contextlib.suppress(ConflictError):  # drawn just now
                generation.cancel()
            raise typer.Exit(130) from None
        paths = [generation.save(position, path) for position, path in enumerate(_paths(out, generation))]
    if as_json:
        write_json(generation.state.model_dump(mode="json") | {"files": [str(path) for path in paths]})
        return
    rows = [_row(picture, path) for picture, path in zip(generation.pictures, paths, strict=True)]
    write_table(["model", "name", "seconds", "file"], rows)


class _Teller:
    """Tells what a generation waits for, each thing once."""

    def __init__(self) -> None:
        self._told = ""

    def __call__(self, generation: Generation) -> None:
        state = generation.state
        words = state.waiting_message or {"running": "drawing"}.get(state.status, "")
        if words and words != self._told:
            tell(words)
        self._told = words


def _paths(out: Path, generation: Generation) -> list[Path]:
    if len(generation.pictures) == 1:
        return [out]
    return [out.with_stem(f"{out.stem}-{picture.model}") for picture in generation.pictures]


def _row(picture: DrawnPicture, path: Path) -> list[str]:
    seconds = "" if picture.seconds is None else f"{picture.seconds:.2f}"
    return [picture.model, picture.name, seconds, str(path)]
