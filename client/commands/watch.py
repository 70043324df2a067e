"""``condenser watch``: a job's progress until its end."""

from typing import Annotated

import typer

from client.address import address_of
from client.jobs import Job
from client.output import messages, tell
from client.watching import Figures, display_on

INTERRUPTED = 130


def add_to(commands: typer.Typer) -> None:
    """Add the command."""
    commands.command()(watch)


def watch(context: typer.Context, job_id: Annotated[str, typer.Argument(help="Id of the job.")]) -> None:
    """Show a job's progress until it ends. Ctrl-C ends the watching, not the job."""
    with address_of(context).connect() as condenser:
        follow(condenser.jobs.get(job_id))


def follow(job: Job) -> None:
    """Show a job's progress; the command's exit code says whether the job succeeded."""
    try:
        show_progress(job)
    except KeyboardInterrupt:
        tell(
            f"the job goes on: `condenser watch {job.id}` shows it again, "
            f"`condenser pause {job.id}` and `condenser cancel {job.id}` stop it"
        )
        raise typer.Exit(INTERRUPTED) from None
    tell(describe_end(job))
    if job.status != "succeeded":
        raise typer.Exit(1)


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
