"""``condenser cancel``, ``pause``, ``resume``, ``save-now``, ``retry`` and so on: what is done to a job."""

from typing import Annotated

import typer

from client.address import address_of
from client.commands.jobs import AsJson, JobId
from client.commands.submit import Settings, changes_of
from client.examples import JOB, example
from client.models import JobState
from client.output import tell, write_json, write_line


def add_to(commands: typer.Typer) -> None:
    """Add the commands."""
    for command in (cancel, pause, resume, save_now, sample_now, retry):
        name = command.__name__.replace("_", "-")
        commands.command(name, epilog=example(f"condenser {name} {JOB}"))(command)
    commands.command(epilog=example(f"condenser clone {JOB} --set student=c-micro"))(clone)
    commands.command(epilog=example(f"condenser delete {JOB}"))(delete)


def cancel(context: typer.Context, job_id: JobId, as_json: AsJson = False) -> None:
    """Cancel a job; one that runs is asked to stop and keeps a checkpoint."""
    with address_of(context).connect() as condenser:
        _report(condenser.jobs.get(job_id).cancel().state, as_json)


def pause(context: typer.Context, job_id: JobId, as_json: AsJson = False) -> None:
    """Pause a job; one that runs is asked to stop, keeps a checkpoint and frees its accelerator."""
    with address_of(context).connect() as condenser:
        _report(condenser.jobs.get(job_id).pause().state, as_json)


def resume(context: typer.Context, job_id: JobId, as_json: AsJson = False) -> None:
    """Queue a paused job again; it goes on from its last checkpoint."""
    with address_of(context).connect() as condenser:
        _report(condenser.jobs.get(job_id).resume().state, as_json)


def save_now(context: typer.Context, job_id: JobId, as_json: AsJson = False) -> None:
    """Ask a running training for a checkpoint at its next step; it goes on."""
    with address_of(context).connect() as condenser:
        _report(condenser.jobs.get(job_id).save_now().state, as_json)


def sample_now(context: typer.Context, job_id: JobId, as_json: AsJson = False) -> None:
    """Ask a running training for its sample pictures at its next step; it goes on."""
    with address_of(context).connect() as condenser:
        _report(condenser.jobs.get(job_id).sample_now().state, as_json)


def retry(
    context: typer.Context,
    job_id: JobId,
    from_scratch: Annotated[
        bool, typer.Option("--from-scratch", help="Do not go on from the last checkpoint.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Queue a failed or cancelled job again."""
    with address_of(context).connect() as condenser:
        _report(condenser.jobs.get(job_id).retry(from_scratch=from_scratch).state, as_json)


def clone(context: typer.Context, job_id: JobId, settings: Settings = None, as_json: AsJson = False) -> None:
    """Submit a job's specification again, with the fields changed that are set."""
    with address_of(context).connect() as condenser:
        job = condenser.jobs.get(job_id).clone(changes_of(settings))
    if as_json:
        write_json(job.state.model_dump(mode="json"))
        return
    write_line(job.id)
    tell(f"{job.status}; `condenser watch {job.id}` shows it")


def delete(context: typer.Context, job_id: JobId, as_json: AsJson = False) -> None:
    """Delete a job that does not run, with its history and all its files."""
    with address_of(context).connect() as condenser:
        condenser.jobs.get(job_id).delete()
    if as_json:
        write_json({"id": job_id, "deleted": True})
        return
    tell("deleted")


def _report(state: JobState, as_json: bool) -> None:
    if as_json:
        write_json(state.model_dump(mode="json"))
        return
    stops = state.status == "running" and (state.cancel_requested or state.pause_requested)
    wishes = {"stop": stops, "save a checkpoint": state.save_requested, "draw": state.sample_requested}
    asked = " and to ".join(wish for wish, stands in wishes.items() if stands)
    write_line(f"{state.status}, and asked to {asked}" if asked else state.status)
