"""``condenser watch``: a job's progress until its end."""

from collections.abc import Callable
from typing import Annotated

import typer

from client.address import address_of
from client.examples import JOB, example
from client.jobs import Job
from client.output import messages, tell, write_line
from client.watching import Figures, display_on

INTERRUPTED = 130


def add_to(commands: typer.Typer) -> None:
    """Add the command."""
    commands.command(epilog=example(f"condenser watch {JOB}"))(watch)


def watch(
    context: typer.Context,
    job_id: Annotated[str, typer.Argument(help="Id of the job.")],
    as_json: Annotated[
        bool, typer.Option("--json", help="Print every event as a line of JSON, as it happens.")
    ] = False,
) -> None:
    """Show a job's progress until it ends. Ctrl-C ends the watching, not the job."""
    with address_of(context).connect() as condenser:
        follow(condenser.jobs.get(job_id), write_events if as_json else show_progress)


def follow(job: Job, show: Callable[[Job], None] | None = None) -> None:
    """Show a job's progress; the command's exit code says whether the job succeeded."""
    try:
        (show or show_progress)(job)
    except KeyboardInterrupt:
        tell(
            f"the job goes on: `condenser watch {job.id}` shows it again, "
            f"`condenser pause {job.id}` and `condenser cancel {job.id}` stop it"
        )
        raise typer.Exit(INTERRUPTED) from None
    tell(describe_end(job))
    if job.status != "succeeded":
        raise typer.Exit(1)


def write_events(job: Job) -> None:
    """Write a job's events for programs, each as it happens, and leave its last state in the job."""
    for event in job.events():
        write_line(event.model_dump_json())
    job.refresh()


def show_progress(job: Job) -> None:
    """Show a job's progress until its end, and leave its last state in the job."""
    figures = Figures()
    with display_on(messages) as display:
        for event in job.events():
            figures.take(event)
            if event.type == "warning":
                tell(f"warning: {event.data['message']}")
            if event.type == "status" and event.data.get("message") and not event.ends_the_job:
                tell(f"{event.data['status']}: {event.data['message']}")
            if not event.ends_the_job:
                display.show(figures)
    job.refresh()


def describe_end(job: Job) -> str:
    """Say how a job ended, and what to do next."""
    state = job.state
    if state.status == "succeeded":
        return f"succeeded; `condenser download {state.id}` fetches the student"
    words = [state.status, state.reason, state.message, state.hint]
    return ": ".join(word for word in words if word)
