"""Which class of accelerator a job waits for: the least whose memory holds its training, by the estimate."""

from dataclasses import dataclass

from api.teachers.service import find_registered
from core.estimate import estimate_job
from core.spec import DistillationSpec
from store.accelerators import least_class_for
from store.remote_inputs import is_remote
from store.settings import Settings


@dataclass(frozen=True)
class Place:
    """Where a job waits, and the memory that its training takes; None where that was not counted."""

    queue: str
    memory_bytes: int | None = None


def place_job(spec: DistillationSpec, settings: Settings) -> Place:
    """Choose a job's queue.

    An installation that names no classes has one queue. A teacher in an object store is not counted: its job
    goes to the queue of those whose memory is not known, and a worker finds out what it takes.

    Raises
    ------
    InvalidInputError
        If no class of this installation could ever run the job.
    """
    classes = settings.classes
    if not classes or is_remote(spec.teacher):
        return Place(settings.queue_of_unknown_memory)
    teacher = find_registered(spec.teacher, settings.teachers_dirs)
    memory_bytes = estimate_job(teacher, spec).training_memory_bytes
    return Place(least_class_for(classes, memory_bytes).name, memory_bytes)
