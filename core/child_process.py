"""Processes that die with the one that started them; free of torch, and of all but the standard library."""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def die_with_parent(parent: int) -> None:
    """Ask the kernel to kill this process when its parent dies, and end it if that has happened already.

    The kernel counts the thread that started this process as its parent; the setting outlives an exec. Linux
    alone can do this (``PR_SET_PDEATHSIG``): elsewhere a process goes on without its parent.

    Parameters
    ----------
    parent
        Process id of the parent.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        # The parent died before the kernel was asked.
        sys.exit(os.EX_TEMPFAIL)
