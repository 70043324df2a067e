"""One job's work as a process: ``python -m core.run --spec spec.json --workdir W --teachers DIR``.

Exit status: 0 finished; 75 stopped by SIGTERM, resumable by the same command; 1 failed, with a ``failed``
event as the last line of ``events.jsonl``; 74 failed because the disk is so full that not even that line
could be written.
"""

import argparse
import contextlib
import errno
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from diffusers.utils import logging as diffusers_logging
from pydantic import ValidationError
from transformers.utils import logging as transformers_logging

from core.errors import CoreError, OutOfMemoryError, StorageFullError
from core.events import EventWriter
from core.logs import configure_from_environment
from core.pipeline import Job, run_job
from core.spec import DistillationSpec
from core.stopping import Stopped, StopRequest

FINISHED, FAILED, STOPPED, DISK_FULL = 0, 1, os.EX_TEMPFAIL, os.EX_IOERR
FULL_DISK = {errno.ENOSPC, errno.EDQUOT}

logger = logging.getLogger("core")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a job and return the process's exit status."""
    options = _parse(arguments)
    configure_from_environment("trainer", os.environ)
    for library in (diffusers_logging, transformers_logging):
        library.set_verbosity_error()
        library.disable_progress_bar()
    stop = StopRequest()
    stop.listen()
    events = EventWriter(options.workdir / "events.jsonl")
    try:
        job = Job(
            spec=DistillationSpec.model_validate_json(options.spec.read_bytes()),
            workdir=options.workdir,
            teachers=options.teachers,
            cache=options.cache or options.workdir / "cache",
            events=events,
            stop=stop,
            fetched_teacher=options.fetched_teacher,
            fetched_captions=options.fetched_captions,
        )
        run_job(job)
    except Stopped:
        logger.info("stopped as asked; the same command goes on from here")
        return STOPPED
    # The boundary of the process: whatever went wrong, the user gets a reason and the log a traceback.
    except Exception as error:
        logger.exception("the job failed")
        failure = explain(error)
        return _tell(failure, events)
    finally:
        with contextlib.suppress(OSError):  # what a full disk did not take is lost, and was told of above
            events.close()
    return FINISHED


def _tell(failure: CoreError, events: EventWriter) -> int:
    try:
        events.write("failed", reason=failure.reason, message=failure.message, hint=failure.hint)
    except OSError as error:
        if error.errno not in FULL_DISK:
            raise
        return DISK_FULL
    return FAILED


def explain(error: Exception) -> CoreError:
    """Return an error in the user's terms."""
    match error:
        case CoreError():
            return error
        case MemoryError() | torch.OutOfMemoryError():
            return _out_of_memory()
        case RuntimeError() if "can't allocate memory" in str(
            error
        ):  # torch's CPU allocator has no class of its own
            return _out_of_memory()
        case OSError() if error.errno in FULL_DISK:
            return StorageFullError("the disk is full", "free some space and run the job again")
        case _ if "No space left on device" in str(error):  # how safetensors reports it
            return StorageFullError("the disk is full", "free some space and run the job again")
        case ValidationError():
            return CoreError(f"the specification is not valid: {error}", "check spec.json")
        case _:
            return CoreError(f"{type(error).__name__}: {error}", "the log has the whole story")


def _out_of_memory() -> OutOfMemoryError:
    return OutOfMemoryError(
        "the memory is used up",
        "lower training.micro_batch_size, latents.batch_size or evaluation.batch_size",
    )


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m core.run", description="Run one distillation job.")
    parser.add_argument("--spec", type=Path, required=True, help="the job's specification, JSON")
    parser.add_argument("--workdir", type=Path, required=True, help="the job's own folder")
    parser.add_argument("--teachers", type=Path, action="append", default=[], help="a folder of teachers")
    parser.add_argument(
        "--cache", type=Path, help="folder of what jobs share, such as latents (default: in workdir)"
    )
    parser.add_argument("--fetched-teacher", type=Path, help="the folder that the teacher was fetched into")
    parser.add_argument("--fetched-captions", type=Path, help="the file that the captions were fetched into")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
