"""Whether a machine is fit for a job at all: looked at before one is claimed.

What is wrong with a machine would otherwise be taken for a fault of the jobs, of one after the other.
"""

import shutil
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from worker.device import Device, find_device

_A_LOOK_IS_GOOD_FOR_SECONDS = 10.0
"""Asking the driver's tool can take a second, and of several hints for one job only one finds it."""


def lack_of_room(work_dir: Path, min_free_bytes: int) -> str | None:
    """Say what keeps an attempt from having its work folder here; None when nothing does.

    Parameters
    ----------
    work_dir
        Where attempts have their folders; made if it is not there.
    min_free_bytes
        Room that its disk has to have.
    """
    try:
        work_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=work_dir):
            free = shutil.disk_usage(work_dir).free
    except OSError as error:
        return f"the work folder cannot be written to: {error}"
    if free < min_free_bytes:
        return f"the disk of {work_dir} has {free} bytes free, and MIN_FREE_BYTES is {min_free_bytes}"
    return None


def needs_accelerator(device: Device) -> bool:
    """Whether trainings belong on an accelerator: there is one, and torch is built for it."""
    return device.is_accelerator and not version("torch").endswith("+cpu")


class AcceleratorWatch:
    """Looks whether the accelerators that a worker has found at its start are there still.

    A container may lose them while it runs, as when its host reloads systemd, and one may fall off its bus.

    Parameters
    ----------
    device
        What was found at the start.
    find
        Finds what there is now.
    clock
        Tells the seconds between two looks.
    """

    def __init__(
        self,
        device: Device,
        find: Callable[[], Device] = find_device,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._device = device
        self._find = find
        self._clock = clock
        self._seen_at: float | None = None

    def lack(self) -> str | None:
        """Say what is missing; None when nothing is."""
        now = self._clock()
        if self._seen_at is not None and now - self._seen_at < _A_LOOK_IS_GOOD_FOR_SECONDS:
            return None
        found, wanted = self._find(), self._device
        if (found.name, found.is_accelerator) != (wanted.name, True) or found.count < wanted.count:
            return (
                f"this worker started with {wanted.count} x {wanted.name}, "
                f"and now there is {found.count} x {found.name}"
            )
        self._seen_at = now
        return None
