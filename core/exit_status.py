"""How a trainer's process ends, in one number; free of torch, and of all but the standard library."""

import errno
import os

FINISHED = 0
FAILED = 1
"""With a ``failed`` event as the last line of ``events.jsonl``."""
STOPPED = os.EX_TEMPFAIL
"""By SIGTERM: the same command goes on from the last checkpoint."""
DISK_FULL = os.EX_IOERR
"""Not even the ``failed`` event could be written."""
CRASHED = os.EX_SOFTWARE
"""By an error that nobody foresaw: with a ``failed`` event as the last line of a job's only process, without
one of a rank, which cannot say whether it failed by itself or by the death of another."""

FULL_DISK = {errno.ENOSPC, errno.EDQUOT}
"""Numbers of the errors by which the system says that a disk is full."""
