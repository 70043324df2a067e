"""``condenser up`` and ``down``: the whole service on this machine."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from client.address import address_of
from client.commands.jobs import AsJson
from client.examples import example
from client.output import tell, write_json, write_line

if TYPE_CHECKING:
    from embedded.state import Stack


def add_to(commands: typer.Typer) -> None:
    """Add the commands."""
    commands.command(epilog=example("condenser up --detach"))(up)
    commands.command(epilog=example("condenser down"))(down)


def up(
    context: typer.Context,
    detach: Annotated[
        bool, typer.Option("--detach", "-d", help="Leave it running; `condenser down` stops it.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Start Postgres, Valkey, S3, the API and workers on this machine, and wait until they answer."""
    from embedded import stack as embedded

    data_dir = address_of(context).data_dir
    with told_stack_errors(), ended_by_any_signal():
        if detach:
            stack = embedded.start(data_dir, with_services=True, detached=True, report=tell)
            _say_what_to_open(stack, as_json)
            tell("`condenser down` stops it")
            return
        with embedded.running(data_dir, with_services=True, report=tell) as stack:
            _say_what_to_open(stack, as_json)
            tell("Ctrl-C stops it")
            embedded.watch_over(stack)


def down(context: typer.Context, as_json: AsJson = False) -> None:
    """Stop what `condenser up` started, in order."""
    from embedded import stack as embedded

    with told_stack_errors():
        stopped = embedded.stop(address_of(context).data_dir, report=tell)
    if as_json:
        write_json({"stopped": bool(stopped)})
    elif not stopped:
        tell("nothing runs")


@contextmanager
def told_stack_errors() -> Iterator[None]:
    """End the command with the words of an error of the stack, and quietly on Ctrl-C."""
    from embedded.errors import StackError

    try:
        yield
    except StackError as error:
        tell(f"condenser: {error}")
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)


@contextmanager
def ended_by_any_signal() -> Iterator[None]:
    """Let a request to end, or a closed terminal, do what Ctrl-C does: stop what was started."""
    asked = (signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, signal.default_int_handler) for number in asked}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _say_what_to_open(stack: "Stack", as_json: bool) -> None:
    if as_json:
        write_json({"url": stack.api_url, "data_dir": str(stack.data_dir)})
        return
    write_line(f"{stack.api_url}")
    tell(f"API reference: {stack.api_url}/docs")
    tell(f"logs: {stack.data_dir / 'logs'}")
