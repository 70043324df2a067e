"""A job on several accelerators: ``python -m core.elastic TORCHRUN-OPTIONS -m core.run CORE-RUN-OPTIONS``.

This is torchrun, with the ways to end that `core.run` has alone: 0 finished, 75 stopped by SIGTERM, 1 failed
with a ``failed`` event, 74 the disk is full; else as the rank that crashed did. Ranks that crash are started
again together, ``--max-restarts`` times, and go on from the last checkpoint. A job that fails for a reason
which it gives is not started again.

On several hosts each runs this command with the same ``--rdzv-id``, a fresh one for every launch; the job's
folders are shared. Options that torchrun gives a default for, such as ``--standalone``, are its own.
"""

import argparse
import contextlib
import logging
import os
import signal
import sys
import uuid
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

from torch.distributed import run as torchrun
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

from core.events import EventWriter
from core.exit_status import CRASHED, DISK_FULL, FAILED, FINISHED, FULL_DISK, STOPPED
from core.logs import configure_from_environment
from core.rank_ends import AGENT_VARIABLE, FOLDER_VARIABLE, RankEnds

SHUTDOWN_VARIABLE = "TORCH_ELASTIC_SHUTDOWN_TIMEOUT"
SHUTDOWN_SECONDS = 24 * 3_600
"""What ranks have to write a checkpoint: whoever stops them kills them when that takes too long."""

OWN_STORE_VARIABLE = "TORCH_DISABLE_SHARE_RDZV_TCP_STORE"
"""Ranks that are started again must not meet in the store that still holds the addresses of dead ones."""

NO_ID = "none"
"""What torchrun takes for the id where none is given."""

logger = logging.getLogger("core")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a job's ranks on this host and return the process's exit status."""
    configure_from_environment("trainer", os.environ)
    options = _parse(arguments)
    workdir = _workdir(options.training_script_args)
    ends = RankEnds(workdir.resolve() / "ranks" / options.rdzv_id)
    ends.folder.mkdir(parents=True, exist_ok=True)
    os.environ |= {FOLDER_VARIABLE: str(ends.folder), AGENT_VARIABLE: str(os.getpid())}
    os.environ.setdefault(SHUTDOWN_VARIABLE, str(SHUTDOWN_SECONDS))
    os.environ[OWN_STORE_VARIABLE] = "1"
    crash = None
    with contextlib.suppress(SignalException):  # the ranks were told, too, and have left word
        try:
            torchrun.run(options)
        except ChildFailedError as error:
            crash = error.get_first_failure()[1].exitcode
            logger.error("a rank ended with exit code %d", crash)
    return _end(ends, workdir, crash)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return torchrun's options, with an id that no earlier launch had: ranks leave their word under it."""
    parser = torchrun.get_args_parser()
    options = parser.parse_args(arguments)
    if options.standalone:
        options.standalone, options.rdzv_backend, options.rdzv_endpoint = False, "c10d", "localhost:0"
        options.rdzv_id, options.local_addr = uuid.uuid4().hex, options.local_addr or "127.0.0.1"
    if options.rdzv_id == NO_ID:
        if torchrun.parse_min_max_nnodes(options.nnodes)[1] > 1:
            parser.error("several hosts need the same --rdzv-id, a fresh one for every launch")
        options.rdzv_id = uuid.uuid4().hex
    return options


def _end(ends: RankEnds, workdir: Path, crash: int | None) -> int:
    """Return the status to end with; after a crash that of the rank which crashed, or by its signal."""
    if (failure := ends.failure()) is not None:
        return _tell(ends, workdir, asdict(failure))
    status = ends.status()
    if status == FINISHED or (status == STOPPED and crash is None):
        return status
    if crash is not None and crash < 0:
        with contextlib.suppress(OSError):  # nobody can choose what SIGKILL does
            signal.signal(-crash, signal.SIG_DFL)
        os.kill(os.getpid(), -crash)
    return DISK_FULL if crash == DISK_FULL else CRASHED


def _tell(ends: RankEnds, workdir: Path, failure: dict[str, str]) -> int:
    """Tell why the job failed, as the last event: no rank writes any more."""
    try:
        if ends.take_over_telling():
            with closing(EventWriter(workdir / "events.jsonl")) as events:
                events.write("failed", **failure)
    except OSError as error:
        if error.errno not in FULL_DISK:
            raise
        return DISK_FULL
    return FAILED


def _workdir(arguments: Sequence[str]) -> Path:
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--workdir", type=Path, required=True)
    return parser.parse_known_args(arguments)[0].workdir


if __name__ == "__main__":
    sys.exit(main())
