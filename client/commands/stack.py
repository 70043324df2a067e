"""``condenser up`` and ``down``: the whole service on this machine."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from client.address import address_of
from client.output import tell, write_line

if TYPE_CHECKING:
    from embedded.state import Stack


def add_to(commands: typer.Typer) -> None:
    """Add the commands."""
    commands.command()(up)
    commands.command()(down)


def up(
    context: typer.Context,
    detach: Annotated[
        bool, typer.Option("--detach", "-d", help="Leave it running; `condenser down` stops it.")
    ] = False,
) -> None:
    """Start Postgres, Valkey, S3, the API and workers on this machine, and wait until they answer."""
    from embedded import stack as embedded

    data_dir = address_of(context).data_dir
    with told_stack_errors(), ended_by_any_signal():
        if detach:
            _say_what_to_open(embedded.start(data_dir, with_services=True, detached=True, report=tell))
            tell("`condenser down` stops it")
            return
        with embedded.running(data_dir, with_services=True, report=tell) as stack:
            _say_what_to_open(stack)
            tell("Ctrl-C stops it")
            embedded.watch_over(stack)


def down(context: typer.Context) -> None:
    """Stop what `condenser up` started, in order."""
    from embedded import stack as embedded

    with told_stack_errors():
        if not embedded.stop(address_of(context).data_dir, report=tell):
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


def _say_what_to_open(stack: "Stack") -> None:
    write_line(f"{stack.api_url}")
    tell(f"API reference: {stack.api_url}/docs")
    tell(f"logs: {stack.data_dir / 'logs'}")
