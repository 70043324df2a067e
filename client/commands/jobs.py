"""``condenser list`` and ``show``: what is known of jobs."""

from datetime import datetime
from typing import Annotated, Any

import typer

from client.address import address_of
from client.examples import JOB, example
from client.models import JobState
from client.output import write_json, write_line, write_table

JobId = Annotated[str, typer.Argument(help="Id of the job.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def add_to(commands: typer.Typer) -> None:
    """Add the commands."""
    commands.command("list", epilog=example("condenser list --status running"))(list_jobs)
    commands.command(epilog=example(f"condenser show {JOB}"))(show)


def list_jobs(
    context: typer.Context,
    status: Annotated[str | None, typer.Option(help="Only jobs of this status.")] = None,
    teacher: Annotated[str | None, typer.Option(help="Only jobs of this teacher.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 20,
    as_json: AsJson = False,
) -> None:
    """List jobs, the newest first."""
    with address_of(context).connect() as condenser:
        jobs = condenser.jobs.list(status=status, teacher=teacher, limit=limit)
    if as_json:
        write_json([job.state.model_dump(mode="json") for job in jobs])
        return
    write_table(
        ["job", "status", "phase", "done", "teacher", "student", "created"],
        [_row(job.state) for job in jobs],
    )


def show(context: typer.Context, job_id: JobId, as_json: AsJson = False) -> None:
    """Show all that is known of a job."""
    with address_of(context).connect() as condenser:
        state = condenser.jobs.get(job_id).state
    if as_json:
        write_json(state.model_dump(mode="json"))
        return
    for name in ("id", "status", "phase", "reason", "message", "hint", "teacher", "student", "attempt"):
        _write_field(name, getattr(state, name))
    _write_field("progress", f"{state.progress:.0%}")
    _write_field("priority", state.priority or None)
    _write_field("max_runtime_s", state.max_runtime_s)
    for name in ("not_before", "created_at", "started_at", "finished_at"):
        _write_field(name, _time(getattr(state, name)))
    for name, figures in (state.result or {}).items():
        _write_field(name, figures)


def _row(state: JobState) -> list[str]:
    return [
        state.id,
        state.status,
        state.phase or "",
        f"{state.progress:.0%}",
        state.teacher,
        state.student,
        _time(state.created_at) or "",
    ]


def _time(moment: datetime | None) -> str | None:
    return moment.astimezone().strftime("%Y-%m-%d %H:%M:%S") if moment else None


def _write_field(name: str, value: Any) -> None:
    """Write a field; of the figures of a part, each under the part's name."""
    if isinstance(value, dict):
        for inner, inner_value in value.items():
            _write_field(f"{name}.{inner}", inner_value)
    elif value is not None:
        text = f"{value:.4g}" if isinstance(value, float) else str(value)
        write_line(f"{name:<34} {text}")
