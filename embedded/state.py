"""What runs in a data folder: the record that one command writes and the others read.

The record is the only way by which ``condenser list`` or ``condenser down`` know of a stack that another
command started. It holds passwords, so its mode is 0600. It may be older than the truth (after a power cut,
or a kill -9 of everything), hence nothing here believes in a process that it has not looked at.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep

from pydantic import BaseModel, ConfigDict, ValidationError

from embedded.errors import StackBusyError
from embedded.files import write_private
from embedded.processes import POLL_SECONDS, ProcessRecord

DEFAULT_DATA_DIR = Path(".condenser")
STATE_FILE = "stack.json"
LOCK_FILE = "stack.lock"


class Stack(BaseModel):
    """A stack that was started: its processes in the order of their start, and its addresses.

    Attributes
    ----------
    owner
        The command that watches over the stack and stops it at its own end; None for a stack that was left
        running on purpose.
    variables
        Addresses and credentials, by the names of the service's settings.
    api_url
        Where the API answers; None when only the servers were started.
    """

    model_config = ConfigDict(frozen=True)

    data_dir: Path
    owner: ProcessRecord | None
    processes: list[ProcessRecord] = []
    variables: dict[str, str] = {}
    api_url: str | None = None

    def environment(self) -> dict[str, str]:
        """Return the environment variables by which the service finds this stack."""
        return dict(self.variables)

    def with_variable(self, name: str, value: str) -> "Stack":
        """Return the stack with a variable more."""
        return self.model_copy(update={"variables": self.variables | {name: value}})

    def dead_processes(self) -> list[ProcessRecord]:
        """Return the processes that have ended, though nobody stopped the stack."""
        return [record for record in self.processes if record.find() is None]

    def is_running(self) -> bool:
        """Tell whether any process lives and somebody is in charge of it."""
        is_owned = self.owner is None or self.owner.find() is not None
        return is_owned and len(self.dead_processes()) < len(self.processes)

    def save(self) -> None:
        """Write the record into the data folder."""
        write_private(self.data_dir / STATE_FILE, self.model_dump_json(indent=2))


def recorded_stack(data_dir: Path) -> Stack | None:
    """Read the record of a data folder, whatever has become of its processes."""
    try:
        return Stack.model_validate_json((data_dir / STATE_FILE).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValidationError):
        return None


def running_stack(data_dir: Path) -> Stack | None:
    """Return the stack that runs in a data folder, if one does."""
    stack = recorded_stack(data_dir.resolve())
    return stack if stack is not None and stack.is_running() else None


@contextmanager
def transition(data_dir: Path, wait_seconds: float) -> Iterator[None]:
    """Hold the right to start or stop the processes of a data folder.

    The system gives the right back when its holder dies, however it dies.

    Raises
    ------
    StackBusyError
        If somebody else still holds it after the wait.
    """
    deadline = monotonic() + wait_seconds
    with (data_dir / LOCK_FILE).open("a+", encoding="utf-8") as lock:
        while not _try_lock(lock.fileno()):
            if monotonic() > deadline:
                lock.seek(0)
                raise StackBusyError(
                    f"process {lock.read().strip() or 'unknown'} is starting or stopping the stack in"
                    f" {data_dir}; try again when it has finished"
                )
            sleep(POLL_SECONDS)
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
