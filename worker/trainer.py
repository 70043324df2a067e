"""The trainer as a child process in a process group of its own.

It is executed afresh, never forked from the worker, so no accelerator state is shared, and a signal to the
worker's group does not reach it: the supervisor alone decides when it stops.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from store.settings import Settings
from store.step_wishes import StepWish
from worker.inputs import FetchedInputs

RESTARTS = 2
"""How often processes that crash start again, together, before it counts as a crash of the trainer."""

LAUNCHERS_VARIABLES = frozenset(("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK"))
"""By which a launcher tells a process of its place: the worker's own is not the trainer's, and core.run alone
among others is refused. Under core.elastic each process has its own."""

CommandBuilder = Callable[[Path, Path], Sequence[str]]
"""Makes the trainer's command from the paths of the specification and the work folder."""


def core_command(settings: Settings, *, needs_accelerator: bool = False) -> CommandBuilder:
    """Make the command builder for the real trainer, ``core.run``, or several under ``core.elastic``.

    Parameters
    ----------
    settings
        Its folders, and how many processes it has.
    needs_accelerator
        Whether it shall rather crash than train on the processor.
    """

    def build(spec: Path, work_dir: Path) -> list[str]:
        processes = settings.worker_processes
        if processes > 1:
            training = json.loads(spec.read_text(encoding="utf-8"))["training"]
            processes = min(processes, training["batch_size"])
        command = [sys.executable]
        if processes > 1:
            command += ["-m", "core.elastic", "--standalone", "--nproc-per-node", str(processes)]
            command += ["--max-restarts", str(RESTARTS)]
        command += ["-m", "core.run", "--spec", str(spec), "--workdir", str(work_dir)]
        command += ["--cache", str(settings.cache_dir.resolve())]
        command += ["--device", "cuda" if needs_accelerator else "auto"]
        for folder in settings.teachers_dirs:
            command += ["--teachers", str(folder.resolve())]
        return command

    return build


def ask_at_step(work_dir: Path, wish: StepWish) -> None:
    """Ask the trainer of a work folder for something at its next step: a file there, which it takes away.

    A signal would end a trainer that has not come to listen for it yet. One that makes no steps any more
    leaves the file, and does not do what it asks.
    """
    requests = work_dir / "requests"
    requests.mkdir(exist_ok=True)
    (requests / wish).touch()


def fetched_options(fetched: FetchedInputs) -> list[str]:
    """Make the options that tell a trainer where its inputs were fetched to."""
    places = {"--fetched-teacher": fetched.teacher, "--fetched-captions": fetched.captions}
    return [text for option, place in places.items() if place is not None for text in (option, str(place))]


class Trainer:
    """One running trainer.

    Parameters
    ----------
    command
        Program, by its full path, and arguments.
    log
        File that receives its output.
    environment
        Variables that it has beside the worker's own, of which those of a launcher are left out.
    """

    def __init__(
        self, command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        own = {name: value for name, value in os.environ.items() if name not in LAUNCHERS_VARIABLES}
        launcher = [sys.executable, "-m", "worker.launch", str(os.getpid())]
        with log.open("ab") as output:
            self._process = subprocess.Popen(  # noqa: S603  # our own command, no shell
                [*launcher, *command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**own, **(environment or {})},
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """Process id, which is also the id of its group."""
        return self._process.pid

    def wait(self, seconds: float) -> int | None:
        """Wait a while for the end; the exit code, negative for a signal, or None while it runs."""
        try:
            return self._process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            return None

    def ask_to_stop(self) -> None:
        """Send SIGTERM to the trainer itself: it writes a checkpoint and tells its own children."""
        self._process.terminate()

    def kill(self) -> None:
        """Kill what is left of the whole group and reap the trainer."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


def describe_exit(code: int) -> str:
    """Say how a trainer ended, in a sentence for the user."""
    if code == 0:
        return "The trainer ended without leaving a student."
    if code > 0:
        return f"The trainer ended with exit code {code} without saying why."
    name = signal.Signals(-code).name
    cause = "; the host may have run out of memory" if -code == signal.SIGKILL else ""
    return f"The trainer was killed by {name}{cause}."
