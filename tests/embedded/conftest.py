"""A data folder of a test's own, whose processes are ended whatever the test does."""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from embedded import processes
from embedded.stack import stop


@pytest.fixture
def data_dir() -> Iterator[Path]:
    """A folder outside pytest's own: under root, another run of pytest closes that to Postgres's account."""
    with tempfile.TemporaryDirectory(prefix="condenser-") as root:
        folder = Path(root) / "stack"
        yield folder
        stop(folder)


@pytest.fixture
def deep_data_dir() -> Iterator[Path]:
    """A folder whose path is longer than a Unix socket's may be, and has a space in it."""
    with tempfile.TemporaryDirectory(prefix="condenser-") as root:
        folder = Path(root) / ("deep " + "x" * 60) / ("y" * 60) / "stack"
        folder.parent.mkdir(parents=True)
        yield folder
        stop(folder)


@pytest.fixture
def left_over() -> Callable[[Path], list[psutil.Process]]:
    """Finds the living processes of a data folder."""
    return lambda folder: list(processes.marked(str(folder.resolve())))
