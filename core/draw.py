"""Drawing for somebody who waits, as a process that keeps its models ready: ``python -m core.draw``.

It reads requests (`Request`) from standard input, a JSON object a line, and answers each by lines on standard
output: a `drawn` for every picture, then `done`; or `failed` with a reason, or `stopped`. The line
``{"stop": ID}`` gives a request up between two sampler steps. It ends with its standard input, and by itself
when nothing was asked for a while, so that the memory of its models is free again.
"""

import argparse
import json
import logging
import os
import queue
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any, TextIO

import torch
from diffusers import UNet2DConditionModel
from diffusers.utils import logging as diffusers_logging
from PIL import Image
from pydantic import BaseModel
from safetensors import SafetensorError
from transformers.utils import logging as transformers_logging

from core.artist import Artist
from core.attention import attention_kernels
from core.errors import BadTeacherError
from core.exhaustion import exhaustion
from core.files import replacing
from core.frozen import load_frozen
from core.logs import configure_from_environment
from core.model_shelf import ModelShelf
from core.optimisation import choose_precision
from core.revisions import sampled_revision
from core.run import explain
from core.spec import EvaluationSpec, TrainingSpec
from core.stopping import Stopped
from core.teacher import Teacher, load_teacher
from core.teacher_folder import TeacherInfo
from core.teacher_refs import resolve_teacher

logger = logging.getLogger("core.draw")


class DrawingRequest(BaseModel):
    """One model's picture.

    Attributes
    ----------
    teacher
        As a specification names it.
    teacher_revision
        What the teacher has to be, where the job says so.
    fetched_teacher
        The folder that the teacher was fetched into, where it lies elsewhere.
    student
        Folder of the student's U-Net; None for the teacher's own.
    evaluation
        Sampler, steps and guidance.
    """

    teacher: str
    teacher_revision: str | None = None
    fetched_teacher: Path | None = None
    student: Path | None = None
    evaluation: EvaluationSpec


class Request(BaseModel):
    """Pictures of one prompt from one seed, written as ``0.png``, ``1.png``, … into a folder."""

    id: str
    prompt: str
    seed: int
    folder: Path
    drawings: list[DrawingRequest]


@dataclass
class Inbox:
    """What comes on standard input: requests in order, and which of them are to be given up."""

    requests: "queue.SimpleQueue[Request | None]" = field(default_factory=queue.SimpleQueue)
    stopped: set[str] = field(default_factory=set)

    def read(self, lines: TextIO) -> None:
        """Take lines until there are no more; the body of a thread."""
        for line in lines:
            content = json.loads(line)
            if "stop" in content:
                self.stopped.add(content["stop"])
            else:
                self.requests.put(Request.model_validate(content))
        self.requests.put(None)

    def check(self, request: Request) -> None:
        """Raise `Stopped` if a request is to be given up."""
        if request.id in self.stopped:
            raise Stopped


@dataclass(frozen=True)
class Studio:
    """Draws requests.

    Attributes
    ----------
    teachers
        Folders of registered teachers.
    device
        Where everything is computed.
    shelf
        What is ready.
    """

    teachers: Sequence[Path]
    device: torch.device
    shelf: ModelShelf

    def draw(self, request: Request, position: int, inbox: Inbox) -> dict[str, Any]:
        """Draw one picture of a request, and say how large it is and how long it took."""
        wanted = request.drawings[position]
        teacher, student, load_seconds = self._models(wanted)
        inbox.check(request)
        artist = Artist(teacher, student or teacher.unet, wanted.evaluation)
        with attention_kernels(teacher):
            began = perf_counter()
            picture_CHW = artist.draw([request.prompt], [request.seed], lambda: inbox.check(request))[0]
            seconds = perf_counter() - began
        inbox.check(request)  # whoever gave it up may have removed the folder
        picture = Image.fromarray(picture_CHW.permute(1, 2, 0).contiguous().numpy())
        path = request.folder / f"{position}.png"
        with replacing(path) as temporary:
            picture.save(temporary, format="PNG")
        return {
            "path": str(path),
            "width": picture.width,
            "height": picture.height,
            "seconds": seconds,
            "load_seconds": load_seconds,
        }

    def _models(self, wanted: DrawingRequest) -> tuple[Teacher, UNet2DConditionModel | None, float]:
        info = resolve_teacher(wanted.teacher, self.teachers, wanted.fetched_teacher)
        if not _is_wanted(info, wanted.teacher_revision):
            raise BadTeacherError(
                f"the teacher {wanted.teacher} on this worker is not the one that the job was done with",
                "clone the job to distil the present one",
            )
        precision = choose_precision(TrainingSpec(), self.device)
        teacher = self.shelf.take(
            (str(info.path), info.revision), lambda: load_teacher(info, self.device, precision)
        )
        if wanted.student is None:
            return teacher.model, None, teacher.load_seconds
        folder = wanted.student
        student = self.shelf.take(str(folder), lambda: load_student(folder).to(self.device))
        return teacher.model, student.model, teacher.load_seconds + student.load_seconds


def _is_wanted(teacher: TeacherInfo, revision: str | None) -> bool:
    """Tell whether a teacher is the one of a job's result, which may be an earlier release's."""
    return revision in (None, teacher.revision) or revision == sampled_revision(teacher.path)


def load_student(folder: Path) -> UNet2DConditionModel:
    """Load the U-Net of an exported student.

    Raises
    ------
    BadTeacherError
        If its files are missing or damaged.
    OutOfMemoryError
        If there is no room for it.
    """
    try:
        return load_frozen(UNet2DConditionModel, folder)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise exhaustion(error) or BadTeacherError(f"the student cannot be loaded: {error}") from error


def serve(inbox: Inbox, studio: Studio, answers: TextIO, idle_seconds: float) -> None:
    """Answer requests until there are no more, or none has come for a while."""

    def say(request: Request, kind: str, **content: Any) -> None:
        answers.write(json.dumps({"id": request.id, "type": kind, **content}) + "\n")
        answers.flush()

    while True:
        try:
            request = inbox.requests.get(timeout=idle_seconds)
        except queue.Empty:
            return
        if request is None:
            return
        try:
            for position in range(len(request.drawings)):
                say(request, "drawn", position=position, **studio.draw(request, position, inbox))
            say(request, "done")
        except Stopped:
            say(request, "stopped")
        # One request that cannot be drawn must not take the models of the others along.
        except Exception as error:
            logger.exception("a generation failed")
            failure = explain(error)
            say(request, "failed", reason=failure.reason, message=failure.message, hint=failure.hint)
        inbox.stopped.discard(request.id)
        studio.shelf.tidy()


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve standard input."""
    options = _parse(arguments)
    os.nice(options.nice)
    # Whatever a library prints must not pass for an answer.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    configure_from_environment("drawer", os.environ)
    for library in (diffusers_logging, transformers_logging):
        library.set_verbosity_error()
        library.disable_progress_bar()
    use_accelerator = options.device == "auto" and torch.cuda.is_available()
    studio = Studio(
        teachers=options.teachers,
        device=torch.device("cuda" if use_accelerator else "cpu"),
        shelf=ModelShelf(options.models_bytes),
    )
    inbox = Inbox()
    threading.Thread(target=inbox.read, args=(sys.stdin,), daemon=True).start()
    serve(inbox, studio, answers, options.idle_seconds)
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m core.draw", description="Draw for somebody who waits.")
    parser.add_argument("--teachers", type=Path, action="append", default=[], help="a folder of teachers")
    parser.add_argument("--device", choices=("auto", "cpu"), default="auto", help="where to compute")
    parser.add_argument("--models-bytes", type=int, default=8 * 2**30, help="memory of models kept ready")
    parser.add_argument(
        "--idle-seconds", type=float, default=900, help="ends after so long without a request"
    )
    parser.add_argument("--nice", type=int, default=0, help="how far to step back for other processes")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    status = main()
    # Not by the interpreter's own end, which would wait for the thread that reads standard input.
    os._exit(status)
