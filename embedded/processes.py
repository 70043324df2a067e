"""Processes of the stack: started apart from the terminal, recognised again later, ended for certain.

Every process gets a session of its own, so that Ctrl-C reaches the command that watches over it and not the
process; the command then ends them in order. Each carries a mark in its environment that its children
inherit: what belongs to a data folder is found by the mark even when every record was lost.
"""

import os
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep

import psutil
from pydantic import BaseModel, ConfigDict

from embedded.errors import StackStartError

MARK = "CONDENSER_STACK"
POLL_SECONDS = 0.05
REPORT_SECONDS = 10.0
LOG_LINES_IN_ERRORS = 20
LOG_BYTES = 10 * 2**20
"""A log that is longer when its process starts makes room for a new one, and is kept until that is."""
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
# Field 22 of /proc/PID/stat, counted from the state that follows the name in parentheses.
STARTED_AT = 19


@dataclass(frozen=True)
class Command:
    """How to start a process.

    ``user`` is the account to run as, for a server that refuses to run as root. ``stop_signal`` asks the
    process to end; it is killed when it has not after ``grace_seconds``.
    """

    name: str
    arguments: Sequence[str]
    folder: Path
    log: Path
    environment: Mapping[str, str]
    user: str | None = None
    stop_signal: signal.Signals = signal.SIGTERM
    grace_seconds: float = 20


def birth_of(process: psutil.Process) -> str:
    """Tell a process from every other that has or had its number.

    Linux counts the ticks from the machine's start to the process's; psutil adds the wall clock to them,
    which a correction or a resumed virtual machine moves by minutes. Elsewhere the system keeps the time.

    Raises
    ------
    psutil.NoSuchProcess
        If it has ended and was reaped.
    """
    if not psutil.LINUX:
        return str(process.create_time())
    try:
        fields = Path(f"/proc/{process.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError) as error:
        raise psutil.NoSuchProcess(process.pid) from error
    return f"{BOOT_ID.read_text(encoding='ascii').strip()} {fields[STARTED_AT]}"


class ProcessRecord(BaseModel):
    """A running process, told apart from a later one with the same number by its birth."""

    model_config = ConfigDict(frozen=True)

    name: str
    pid: int
    birth: str
    stop_signal: signal.Signals = signal.SIGTERM
    grace_seconds: float = 20

    @classmethod
    def of_this_process(cls) -> "ProcessRecord":
        """Describe the process that asks."""
        return cls(name="owner", pid=os.getpid(), birth=birth_of(psutil.Process()))

    def find(self) -> psutil.Process | None:
        """Return the process if it still lives."""
        try:
            process = psutil.Process(self.pid)
            same = birth_of(process) == self.birth
            return process if same and process.status() != psutil.STATUS_ZOMBIE else None
        except psutil.NoSuchProcess:
            return None


# The handles of what this process started: it must reap them, or they stay as zombies.
_children: dict[int, subprocess.Popen[bytes]] = {}


def run(command: Command, mark: str) -> None:
    """Run a command to its end.

    Raises
    ------
    StackStartError
        If it fails.
    """
    with _open(command, mark) as child:
        try:
            code = child.wait()
        except BaseException:
            # Ctrl-C above all: the command sits in another session and did not get it.
            child.kill()
            raise
    if code:
        raise StackStartError(f"{command.name} failed with exit code {code}.\n{log_tail(command.log)}")


def _open(command: Command, mark: str) -> "subprocess.Popen[bytes]":
    command.log.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    if command.log.exists() and command.log.stat().st_size > LOG_BYTES:
        command.log.replace(command.log.with_suffix(".previous.log"))
    with command.log.open("ab") as log:
        return subprocess.Popen(  # noqa: S603 (our own command lines only)
            list(command.arguments),
            cwd=command.folder,
            env={**command.environment, MARK: mark},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            user=command.user,
            group=command.user,
            extra_groups=[] if command.user else None,
        )


def spawn(command: Command, mark: str) -> ProcessRecord:
    """Start a process in a session of its own, its output appended to its log."""
    child = _open(command, mark)
    _children[child.pid] = child
    return ProcessRecord(
        name=command.name,
        pid=child.pid,
        birth=birth_of(psutil.Process(child.pid)),
        stop_signal=command.stop_signal,
        grace_seconds=command.grace_seconds,
    )


def await_ready(
    record: ProcessRecord, command: Command, ready: Callable[[], bool], timeout_seconds: float
) -> None:
    """Wait until a process answers.

    Raises
    ------
    StackStartError
        If it ended instead, or did not answer in time.
    """
    deadline = monotonic() + timeout_seconds
    while not ready():
        if record.find() is None:
            raise StackStartError(f"{record.name} ended while it was starting.\n{log_tail(command.log)}")
        if monotonic() > deadline:
            raise StackStartError(
                f"{record.name} did not answer within {timeout_seconds:.0f} s.\n{log_tail(command.log)}"
            )
        sleep(POLL_SECONDS)


def end(record: ProcessRecord, report: Callable[[str], None] | None = None) -> None:
    """Ask a process to stop, then kill it and every descendant that outlives the grace time.

    Parameters
    ----------
    record
        The process.
    report
        Told now and then, in a line, that it has yet to end.
    """
    process = record.find()
    if process is None:
        _reap(record.pid)
        return
    with suppress(psutil.NoSuchProcess):
        family = [process, *process.children(recursive=True)]
        process.send_signal(record.stop_signal)
        asked = monotonic()
        while _lives(process) and (left := asked + record.grace_seconds - monotonic()) > 0:
            await_end([process], min(left, REPORT_SECONDS))
            if report is not None and _lives(process):
                report(
                    f"{record.name}: still stopping after {monotonic() - asked:.0f} s "
                    f"of {record.grace_seconds:.0f} s at most; Ctrl-C kills it"
                )
        kill(family)
    _reap(record.pid)


def kill(processes: Sequence[psutil.Process]) -> None:
    """Kill what still lives of these processes, and wait until it is gone."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    await_end(processes, timeout_seconds=10)


def await_end(processes: Sequence[psutil.Process], timeout_seconds: float) -> None:
    """Wait until these processes have ended, or the time is up."""
    deadline = monotonic() + timeout_seconds
    while any(_lives(process) for process in processes) and monotonic() < deadline:
        sleep(POLL_SECONDS)
    for process in processes:
        _reap(process.pid)


def marked(mark: str) -> Iterator[psutil.Process]:
    """Find every process that was started, directly or not, for a data folder."""
    for process in psutil.process_iter():
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            if process.pid != os.getpid() and process.environ().get(MARK) == mark and _lives(process):
                yield process


def log_tail(log: Path) -> str:
    """Return the last lines of a log, to end an error message with."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.exists() else []
    return "\n".join([f"Last lines of {log}:", *(f"  {line}" for line in lines[-LOG_LINES_IN_ERRORS:])])


def _lives(process: psutil.Process) -> bool:
    if process.pid in _children:
        # A process with threads looks dead a moment before it can be reaped, and until then it is not gone.
        return _children[process.pid].poll() is None
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _reap(pid: int) -> None:
    child = _children.get(pid)
    if child is not None and child.poll() is not None:
        del _children[pid]
