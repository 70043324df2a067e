"""Start a program that dies with its parent: ``python -m worker.launch PARENT_PID PROGRAM ARGUMENT…``.

A supervisor that is killed with SIGKILL cannot stop its trainer, which would then hold the accelerator for
hours. So the kernel is asked to kill the trainer when its parent dies, here, in the new process, because code
run between fork and exec of a threaded program (``preexec_fn``) can deadlock.

The kernel counts the thread that started the program as its parent: the supervisor must start it from the
thread that waits for it. Only the program itself is killed; its own children have to watch for that, as the
ranks of a job do (`core.run`).
"""

import os
import sys

from core.child_process import die_with_parent


def main(arguments: list[str]) -> None:
    """Tie this process to its parent, then become the program."""
    parent, program = int(arguments[0]), arguments[1:]
    die_with_parent(parent)
    os.execv(program[0], program)  # noqa: S606  # replacing this process is what it is for


if __name__ == "__main__":
    main(sys.argv[1:])
