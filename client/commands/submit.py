"""``condenser submit``: a job from a file, from options, or from both."""

import json
import sys
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from client.address import address_of
from client.commands.captions import captions_of
from client.commands.watch import follow
from client.examples import example
from client.jobs import Job
from client.models import Estimate
from client.output import tell, write_json, write_line, write_table
from client.quantities import duration, megabytes, millions

Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="PATH=VALUE", help="Any other field, as training.ema_decay=0.99."),
]


def add_to(commands: typer.Typer) -> None:
    """Add the command."""
    commands.command(
        epilog=example(
            "condenser submit --teacher emoji-64 --student b-small --captions captions.txt --watch",
            "condenser submit job.json --set training.steps=2000 --estimate",
        )
    )(submit)


def submit(
    context: typer.Context,
    file: Annotated[
        Path | None, typer.Argument(help="Specification as JSON; - reads standard input.", show_default=False)
    ] = None,
    teacher: Annotated[str | None, typer.Option(help="Id of the teacher.")] = None,
    student: Annotated[
        str | None, typer.Option(help="Preset such as b-small, or a width such as 0.75.")
    ] = None,
    captions: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Text, CSV, TSV, JSON Lines or Parquet file, uploaded unless it is a short text; or "
            "s3://bucket/key, or the id of an uploaded file.",
        ),
    ] = None,
    drawn: Annotated[int | None, typer.Option(help="How many captions the teacher draws.")] = None,
    drawn_captions: Annotated[
        Path | None, typer.Option(help="Text file of exactly the captions that the teacher draws.")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Training steps.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Samples a step.")] = None,
    learning_rate: Annotated[float | None, typer.Option()] = None,
    seed: Annotated[int | None, typer.Option()] = None,
    priority: Annotated[
        int | None, typer.Option(help="Of the jobs that wait the highest goes first; 0 by default.")
    ] = None,
    max_runtime: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="The job stops after so long.")
    ] = None,
    not_before: Annotated[
        datetime | None, typer.Option(help="The job does not start before this local time.")
    ] = None,
    settings: Settings = None,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Then watch the job.")] = False,
    estimate: Annotated[
        bool, typer.Option("--estimate", help="Only say what the job would take; submit nothing.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the job as JSON.")] = False,
) -> None:
    """Submit a job. Options override the file."""
    if drawn is not None and drawn_captions is not None:
        raise typer.BadParameter("--drawn and --drawn-captions exclude each other")
    spec = _read_file(file) if file is not None else {}
    options = (
        ("teacher", teacher),
        ("student", _student(student)),
        ("drawn", {"count": drawn} if drawn is not None else None),
        ("drawn", {"texts": _lines(drawn_captions)} if drawn_captions else None),
        ("training.steps", steps),
        ("training.batch_size", batch_size),
        ("training.learning_rate", learning_rate),
        ("seed", seed),
        ("options.priority", priority),
        ("options.max_runtime_s", max_runtime),
        ("options.not_before", not_before.astimezone().isoformat() if not_before else None),
        *(_assignment(setting) for setting in settings or []),
    )
    with address_of(context).connect() as condenser:
        if captions is not None:
            spec["captions"] = captions_of(condenser, captions)
        for path, value in options:
            if value is not None:
                _put(spec, path, value)
        if estimate:
            _report_estimate(condenser.estimate(spec), as_json)
            return
        job = condenser.jobs.create(spec)
        _report(job, as_json)
        if watch:
            follow(job)


def changes_of(settings: list[str] | None) -> dict[str, Any]:
    """Read fields and their values from ``PATH=VALUE`` options."""
    changes: dict[str, Any] = {}
    for setting in settings or []:
        _put(changes, *_assignment(setting))
    return changes


def _report(job: Job, as_json: bool) -> None:
    if as_json:
        write_json(job.state.model_dump(mode="json"))
        return
    write_line(job.id)
    tell(f"{job.status}; `condenser watch {job.id}` shows it")


def _report_estimate(estimate: Estimate, as_json: bool) -> None:
    if as_json:
        write_json(estimate.model_dump(mode="json"))
        return
    pictures = "not known" if estimate.drawn_pictures is None else str(estimate.drawn_pictures)
    rows = [
        ("teacher", estimate.teacher),
        ("student", estimate.student),
        ("parameters", f"{millions(estimate.student_parameters)} of {millions(estimate.teacher_parameters)}"),
        ("GMACs a pass", f"{estimate.student_gmacs:.3g} of {estimate.teacher_gmacs:.3g}"),
        ("teacher pictures", pictures),
        ("training memory", megabytes(estimate.training_memory_bytes)),
        ("checkpoints", megabytes(estimate.checkpoint_bytes)),
        ("exported weights", megabytes(estimate.pipeline_bytes)),
    ]
    if estimate.seconds and estimate.total_seconds is not None:
        rows += [(f"time of {phase}", duration(seconds)) for phase, seconds in estimate.seconds.items()]
        rows.append(("time", duration(estimate.total_seconds)))
    else:
        rows.append(("time", "not known before a job of this teacher has run through"))
    write_table(["what", "estimate"], rows)


def _read_file(file: Path) -> dict[str, Any]:
    text = sys.stdin.read() if str(file) == "-" else _read_text(file)
    try:
        spec = json.loads(text)
    except json.JSONDecodeError as error:
        raise typer.BadParameter(f"{file} is not JSON: {error}") from error
    if not isinstance(spec, dict):
        raise typer.BadParameter(f"{file} holds no JSON object")
    return spec


def _read_text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise typer.BadParameter(f"{file} cannot be read: {error}") from error


def _lines(file: Path) -> list[str]:
    return [line.strip() for line in _read_text(file).split("\n") if line.strip()]


def _student(text: str | None) -> str | dict[str, float] | None:
    try:
        return {"width": float(text)} if text is not None else None
    except ValueError:
        return text


def _assignment(setting: str) -> tuple[str, Any]:
    path, separator, text = setting.partition("=")
    if not separator:
        raise typer.BadParameter(f"--set {setting}: write PATH=VALUE")
    try:
        return path, json.loads(text)
    except json.JSONDecodeError:
        return path, text


def _put(spec: dict[str, Any], path: str, value: Any) -> None:
    *parents, name = path.split(".")
    for parent in parents:
        spec = spec.setdefault(parent, {})
        if not isinstance(spec, dict):
            raise typer.BadParameter(f"{path}: {parent} is not an object")
    spec[name] = value
