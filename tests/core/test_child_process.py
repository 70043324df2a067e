"""A process that asked for it dies with its parent, however that dies."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CHILD = """
import os, sys
from core.child_process import die_with_parent
die_with_parent(os.getppid())
print("tied", flush=True)
sys.stdin.read()
"""
PARENT = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', sys.argv[1]]).wait()"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can do it")
def test_a_killed_parent_takes_its_child_along() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, CHILD], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"tied\n"
        parent.kill()
        # The child holds the other end of the pipe, and its input stays open: that this ends is its death.
        assert parent.stdout.read() == b""
