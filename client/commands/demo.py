"""``condenser demo``: one job from nothing to a picture of teacher and student, on this machine."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Annotated

import typer

from client.address import address_of
from client.commands.download import fetch
from client.commands.jobs import AsJson
from client.commands.stack import ended_by_any_signal, told_stack_errors
from client.commands.watch import describe_end, show_progress
from client.condenser import Condenser
from client.demo import SPEC_FILE, draw_picture, read_spec, summarise
from client.errors import ClientError, JobFailedError
from client.examples import example
from client.jobs import Job
from client.output import tell, write_json, write_line
from client.quantities import duration

if TYPE_CHECKING:
    from embedded.state import Stack


def add_to(commands: typer.Typer) -> None:
    """Add the command."""
    commands.command(epilog=example("condenser demo --directory demo"))(demo)


def demo(
    context: typer.Context,
    directory: Annotated[Path, typer.Option(help="Where the student and the picture go.")] = Path("demo"),
    spec: Annotated[Path, typer.Option(help="The job.")] = SPEC_FILE,
    as_json: AsJson = False,
) -> None:
    """Distil the bundled teacher here and now, and draw both side by side. Stops all that it started."""
    data_dir = address_of(context).data_dir
    with told_stack_errors(), ended_by_any_signal():
        began = monotonic()
        with _stack(data_dir) as stack:
            ready = monotonic()
            _distil(stack, spec, directory, as_json)
            ended = monotonic()
        tell(
            f"times: start {duration(ready - began)}, job and picture {duration(ended - ready)}, "
            f"stop {duration(monotonic() - ended)}, all {duration(monotonic() - began)}"
        )


def _distil(stack: "Stack", file: Path, directory: Path, as_json: bool) -> None:
    from embedded.first_key import first_key

    spec = read_spec(file)
    with Condenser(str(stack.api_url), first_key(stack.data_dir)) as condenser:
        began = monotonic()
        job = condenser.jobs.create(spec)
        tell(f"job {job.id} at {stack.api_url}")
        with _cancelled_if_left(job):
            show_progress(job)
        if job.status != "succeeded":
            raise JobFailedError(job.state)
        tell(f"{describe_end(job).partition(';')[0]} after {duration(monotonic() - began)}")
        directory.mkdir(parents=True, exist_ok=True)
        student = fetch(job, directory / "student")
    tell(f"student: {student}")
    picture = draw_picture(spec, student, directory.absolute())
    if as_json:
        write_json({"id": job.id, "student": str(student), "picture": str(picture), "result": job.result})
        return
    for line in summarise(job.result or {}):
        write_line(line)
    write_line(f"picture: {picture}")


@contextmanager
def _cancelled_if_left(job: Job) -> Iterator[None]:
    """Cancel a job that nobody will watch any more; it would stand in the way of the next demo's."""
    try:
        yield
    except BaseException:
        with suppress(ClientError):
            job.cancel()
        raise


@contextmanager
def _stack(data_dir: Path) -> Iterator["Stack"]:
    """Use the stack that runs in the folder already, or run one for the length of the demo."""
    from embedded import stack as embedded
    from embedded.state import running_stack

    running = running_stack(data_dir)
    if running is not None and running.api_url is not None:
        tell(f"using the service that runs at {running.api_url}")
        yield running
        return
    with embedded.running(data_dir, with_services=True, report=tell) as stack:
        yield stack
