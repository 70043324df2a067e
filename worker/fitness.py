"""Whether a machine is fit for a job at all: looked at before one is claimed.

What is wrong with a machine would otherwise be taken for a fault of the jobs, of one after the other.
"""

import shutil
import tempfile
from pathlib import Path


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
