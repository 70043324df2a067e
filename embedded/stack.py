"""Start and stop of the stack, in order.

A start that fails or is interrupted stops what it had begun; a stop ends with a look for anything left that
bears the data folder's mark. What was given an address by the user is neither started nor stopped.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from time import sleep

from embedded import processes, services
from embedded.credentials import Credentials
from embedded.errors import StackAlreadyRunningError, StackError, StackStartError
from embedded.ports import PortBook
from embedded.postgres import Postgres
from embedded.processes import ProcessRecord
from embedded.seaweedfs import SeaweedFS
from embedded.server import Server, Site
from embedded.state import STATE_FILE, Stack, recorded_stack, transition
from embedded.valkey import Valkey

# A port can be lost between the choice and the server's start; then others are tried.
START_ATTEMPTS = 3
READY_SECONDS = 60.0
STOP_WAIT_SECONDS = 90.0
WATCH_SECONDS = 0.5

Report = Callable[[str], None]


def _silent(_message: str) -> None:
    """Report nothing."""


def start(
    data_dir: Path,
    *,
    environ: Mapping[str, str] | None = None,
    durable: bool = True,
    with_services: bool = False,
    detached: bool = False,
    report: Report = _silent,
) -> Stack:
    """Start the servers whose addresses are not set already, and wait until each answers.

    Parameters
    ----------
    data_dir
        Folder of everything the stack keeps; made when missing.
    environ
        Where addresses may be set already; the process's environment by default.
    durable
        False for a stack that is thrown away: faster, and a power cut may lose data.
    with_services
        Also migrate the database and start the API, a worker and an interactive worker.
    detached
        Leave the stack running when this process ends. Otherwise a later start takes it for a leftover then.
    report
        Told what happens, one line at a time.

    Raises
    ------
    StackAlreadyRunningError
        If the folder's stack runs.
    StackBusyError
        If another process is starting or stopping it.
    StackStartError
        If a process does not come up.
    """
    environ = os.environ if environ is None else environ
    data_dir = data_dir.resolve()
    data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    with transition(data_dir, wait_seconds=0):
        _clear_leftovers(data_dir, report)
        site = Site(data_dir, Credentials.load_or_generate(data_dir / "credentials.json"), durable)
        stack = Stack(
            data_dir=data_dir,
            owner=None if detached else ProcessRecord.of_this_process(),
            variables={"DATA_DIR": str(data_dir)} | _own_keys(site.credentials, environ),
        )
        try:
            stack = _start_servers(stack, site, environ, report)
            if with_services:
                stack = services.start_services(stack, site, environ, report)
        except BaseException:
            # Also Ctrl-C: a half-started stack is of no use to anybody.
            _end_everything(data_dir)
            raise
    return stack


def stop(data_dir: Path, report: Report = _silent) -> bool:
    """Stop the data folder's stack in the reverse order of its start, and return whether there was one.

    A second Ctrl-C while it waits kills what is left at once.
    """
    data_dir = data_dir.resolve()
    if not data_dir.is_dir():
        return False
    with transition(data_dir, STOP_WAIT_SECONDS):
        return _end_everything(data_dir, report)


@contextmanager
def running(
    data_dir: Path,
    *,
    environ: Mapping[str, str] | None = None,
    durable: bool = True,
    with_services: bool = False,
    report: Report = _silent,
) -> Iterator[Stack]:
    """Run the stack for the length of a ``with`` block, whatever ends it."""
    stack = start(data_dir, environ=environ, durable=durable, with_services=with_services, report=report)
    try:
        yield stack
    finally:
        stop(data_dir, report)


def watch_over(stack: Stack) -> None:
    """Wait until somebody else stops the stack.

    Raises
    ------
    StackError
        If one of its processes ends by itself; it says which.
    """
    while not (dead := stack.dead_processes()):
        sleep(WATCH_SECONDS)
    with transition(stack.data_dir, STOP_WAIT_SECONDS):
        if recorded_stack(stack.data_dir) is None:
            return
    names = ", ".join(record.name for record in dead)
    log = stack.data_dir / "logs" / f"{dead[0].name}.log"
    raise StackError(f"ended by itself: {names}.\n{processes.log_tail(log)}")


def _own_keys(credentials: Credentials, environ: Mapping[str, str]) -> dict[str, str]:
    """Keys of the service itself, unless the user has set their own."""
    keys = {"WEBHOOK_SECRET_KEYS": credentials.webhook_secret_key}
    return {name: key for name, key in keys.items() if not environ.get(name)}


def _start_servers(stack: Stack, site: Site, environ: Mapping[str, str], report: Report) -> Stack:
    servers: tuple[Server, ...] = (Postgres(site), Valkey(site), SeaweedFS(site))
    ports = PortBook(site.data_dir / "ports.json")
    for server in servers:
        if environ.get(server.address_variable):
            report(f"{server.name}: using the one in {server.address_variable}")
            continue
        report(f"{server.name}: starting")
        server.prepare()
        stack = _start_server(stack, server, ports)
    return stack


def _start_server(stack: Stack, server: Server, ports: PortBook) -> Stack:
    failure: StackStartError | None = None
    for _ in range(START_ATTEMPTS):
        chosen = ports.take(server.port_names, server.port_offsets)
        command = server.command(chosen)
        record = processes.spawn(command, mark=str(stack.data_dir))
        attempt = stack.model_copy(
            update={
                "processes": [*stack.processes, record],
                "variables": stack.variables | server.environment(chosen),
            }
        )
        # Recorded before it answers, so that a kill -9 of this process leaves no unknown server behind.
        attempt.save()
        try:
            processes.await_ready(record, command, partial(server.is_ready, chosen), READY_SECONDS)
        except StackStartError as error:
            failure = error
            processes.end(record)
            ports.forget(server.port_names)
        else:
            return attempt
    raise failure or StackStartError(f"{server.name} was not started")


def _clear_leftovers(data_dir: Path, report: Report) -> None:
    stack = recorded_stack(data_dir)
    if stack is not None and stack.is_running():
        by = f"process {stack.owner.pid}" if stack.owner else "an earlier `condenser up --detach`"
        at = f" at {stack.api_url}" if stack.api_url else ""
        raise StackAlreadyRunningError(
            f"the stack in {data_dir} is already running{at}, started by {by}; `condenser down` stops it"
        )
    if _end_everything(data_dir):
        report("cleared what an interrupted run had left")


def _end_everything(data_dir: Path, report: Report = _silent) -> bool:
    """End the recorded processes in order and then whatever else bears the folder's mark."""
    stack = recorded_stack(data_dir)
    was_there = False

    def tell(message: str) -> None:
        # The terminal may be gone; the processes still have to go in order.
        with suppress(OSError):
            report(message)

    try:
        for record in reversed(stack.processes if stack else []):
            if record.find() is not None:
                was_there = True
                tell(f"{record.name}: stopping")
            processes.end(record, tell)
    finally:
        leftovers = list(processes.marked(str(data_dir)))
        processes.kill(leftovers)
        (data_dir / STATE_FILE).unlink(missing_ok=True)
    return was_there or bool(leftovers)
