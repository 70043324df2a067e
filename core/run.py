"""One job's work as a process: ``python -m core.run --spec spec.json --workdir W --teachers DIR``.

Under ``core.elastic`` it is one of several, the ranks of the job.

Exit status: 0 finished; 75 stopped by SIGTERM, resumable by the same command; 1 failed, with a ``failed``
event as the last line of ``events.jsonl``; 70 crashed by an error that nobody foresaw, with such a line too,
and the same command goes on from the last checkpoint; 74 failed because the disk is so full that not even
that line could be written.
"""

import argparse
import contextlib
import logging
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from diffusers.utils import logging as diffusers_logging
from pydantic import ValidationError
from transformers.utils import logging as transformers_logging

from core.child_process import die_with_parent
from core.errors import AcceleratorLostError, CoreError, UnexpectedError
from core.events import EventWriter
from core.exhaustion import exhaustion
from core.exit_status import CRASHED, DISK_FULL, FAILED, FINISHED, FULL_DISK, STOPPED
from core.logs import configure_from_environment
from core.pipeline import Job, run_job
from core.rank_ends import AGENT_VARIABLE, FOLDER_VARIABLE, Failure, RankEnds
from core.ranks import ALONE, Ranks
from core.spec import DistillationSpec
from core.stopping import Stopped, StopRequest

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
    if (ends := RankEnds.of_this_process(os.environ)) is not None:
        return _run_as_rank(options, stop, ends)
    events = EventWriter(options.workdir / "events.jsonl")
    try:
        status, error = _run(options, stop, ALONE, events)
        if error is None:
            return status
        told = _tell(lambda: events.write("failed", **asdict(Failure.of(error))))
        # It may be the machine's fault, and its accelerator's above all: another one may get further.
        return CRASHED if told == FAILED and isinstance(error, UnexpectedError) else told
    finally:
        with contextlib.suppress(OSError):  # what a full disk did not take is lost, and was told of above
            events.close()


def _run(
    options: argparse.Namespace, stop: StopRequest, ranks: Ranks, events: EventWriter
) -> tuple[int, CoreError | None]:
    """Do the work; the status to end with, and why if it failed."""
    try:
        if options.device == "cuda" and not torch.cuda.is_available():
            raise AcceleratorLostError
        job = Job(
            spec=DistillationSpec.model_validate_json(options.spec.read_bytes()),
            workdir=options.workdir,
            teachers=options.teachers,
            cache=options.cache or options.workdir / "cache",
            events=events,
            stop=stop,
            fetched_teacher=options.fetched_teacher,
            fetched_captions=options.fetched_captions,
            ranks=ranks,
        )
        run_job(job)
    except Stopped:
        logger.info("stopped as asked; the same command goes on from here")
        return STOPPED, None
    # The boundary of the process: whatever went wrong, the user gets a reason and the log a traceback.
    except Exception as error:
        logger.exception("the job failed")
        return FAILED, explain(error)
    return FINISHED, None


def _run_as_rank(options: argparse.Namespace, stop: StopRequest, ends: RankEnds) -> int:
    """Do one rank's work and leave word of its end.

    An error that nobody foresaw may be no more than the death of another rank, which breaks whatever is
    waited for together. It counts as a crash, or where all were told to stop, as that.
    """
    die_with_parent(int(os.environ[AGENT_VARIABLE]))
    if ends.failure() is not None:
        return FINISHED  # started again for nothing: a rank found that the job cannot succeed
    ends.forget(int(os.environ["RANK"]))
    ranks = Ranks.join(os.environ)
    events = EventWriter(options.workdir / "events.jsonl" if ranks.is_first else None)
    status, error = _run(options, stop, ranks, events)
    if isinstance(error, UnexpectedError):
        if not stop.requested:
            return CRASHED
        status, error = STOPPED, None
    failure = None if error is None else Failure.of(error)
    left = _tell(lambda: ends.leave(ranks.rank, status, failure))
    if left == DISK_FULL or failure is not None:
        return left
    if status == FINISHED:
        ranks.leave()
    return FINISHED


def _tell(tell: Callable[[], None]) -> int:
    """Tell of a failure, unless the disk is so full that not even that can be written."""
    try:
        tell()
    except OSError as error:
        if error.errno not in FULL_DISK:
            raise
        return DISK_FULL
    return FAILED


def explain(error: Exception) -> CoreError:
    """Return an error in the user's terms."""
    if isinstance(error, CoreError):
        return error
    if (used_up := exhaustion(error)) is not None:
        return used_up
    if isinstance(error, ValidationError):
        return CoreError(f"the specification is not valid: {error}", "check spec.json")
    return UnexpectedError(f"{type(error).__name__}: {error}", "the log has the whole story")


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m core.run", description="Run one distillation job.")
    parser.add_argument("--spec", type=Path, required=True, help="the job's specification, JSON")
    parser.add_argument("--workdir", type=Path, required=True, help="the job's own folder")
    parser.add_argument("--teachers", type=Path, action="append", default=[], help="a folder of teachers")
    parser.add_argument(
        "--cache", type=Path, help="folder of what jobs share, such as latents (default: in workdir)"
    )
    parser.add_argument(
        "--device", choices=("auto", "cuda"), default="auto", help="cuda: never on the processor"
    )
    parser.add_argument("--fetched-teacher", type=Path, help="the folder that the teacher was fetched into")
    parser.add_argument("--fetched-captions", type=Path, help="the file that the captions were fetched into")
    options = parser.parse_args(arguments)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and FOLDER_VARIABLE not in os.environ:
        parser.error("processes that share a job are started by python -m core.elastic, not by torchrun")
    return options


if __name__ == "__main__":
    sys.exit(main())
