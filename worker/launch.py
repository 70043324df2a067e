"""Start a program that dies with its parent: ``python -m worker.launch PARENT_PID PROGRAM ARGUMENT…``.

A supervisor that is killed with SIGKILL cannot stop its trainer, which would then hold the accelerator for
hours. So the kernel is asked to kill the trainer when its parent dies (Linux, ``PR_SET_PDEATHSIG``); the
setting outlives the exec that follows. It is made here, in the new process, because code run between fork and
exec of a threaded program (``preexec_fn``) can deadlock. Elsewhere the program runs without this safeguard.

The kernel counts the thread that started the program as its parent: the supervisor must start it from the
thread that waits for it. Only the program itself is killed; its own children have to watch for that.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> None:
    """Tie this process to its parent, then become the program."""
    parent, program = int(arguments[0]), arguments[1:]
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        # The parent died before the kernel was asked.
        sys.exit(os.EX_TEMPFAIL)
    os.execv(program[0], program)  # noqa: S606  # replacing this process is what it is for


if __name__ == "__main__":
    main(sys.argv[1:])
