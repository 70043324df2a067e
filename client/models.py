"""The shapes of the service's answers, as far as the client uses them.

Fields that a newer service adds are ignored, so an older client keeps working; statuses, phases and event
types are therefore plain text.
"""

from datetime import datetime
from typing import Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

Item = TypeVar("Item")

WeightsFormat = Literal["archive", "unet", "single-file"]

# A generation that nobody waited for is `expired`; a job never is.
ENDED = frozenset({"succeeded", "failed", "cancelled", "expired"})


class Answer(BaseModel):
    """A frozen part of an answer."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class ResourceState(Answer):
    """What goes on by itself until it ends, as the service described it at one moment.

    Attributes
    ----------
    reason, message, hint
        Why it ended without success, for programs and in words, and what to do.
    version
        Grows with every change.
    """

    id: str
    status: str
    reason: str | None = None
    message: str | None = None
    hint: str | None = None
    version: int
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None

    @property
    def has_ended(self) -> bool:
        """Whether nothing about it will change any more."""
        return self.status in ENDED


class JobState(ResourceState):
    """A job as the service described it at one moment.

    Attributes
    ----------
    progress
        How far the whole job is, from 0 to 1.
    eta_seconds
        Estimated time to the end of the phase.
    """

    phase: str | None = None
    progress: float
    eta_seconds: float | None = None
    attempt: int
    cancel_requested: bool = False
    pause_requested: bool = False
    save_requested: bool = False
    sample_requested: bool = False
    priority: int = 0
    max_runtime_s: float | None = None
    not_before: datetime | None = None
    queue: str
    teacher: str
    student: str
    updated_at: datetime
    spec: dict[str, Any] = {}
    transitions: list[dict[str, Any]] = []
    result: dict[str, Any] | None = None


class Event(Answer):
    """Something that happened to a job; ``sequence`` is 1 for its first event and has no gaps."""

    sequence: int
    at: datetime
    type: str
    attempt: int
    data: dict[str, Any]

    @property
    def ends_the_job(self) -> bool:
        """Whether the job ended with it; only a retry is followed by further events."""
        return self.type == "status" and self.data.get("status") in ENDED


class RemoteFile(Answer):
    """A file to fetch; ``url`` works for an hour without credentials."""

    url: str
    size: int
    sha256: str


class StoredFile(RemoteFile):
    """A file that a job left."""

    kind: str
    attempt: int
    step: int | None = None
    path: str


class DrawnPicture(Answer):
    """One model's part of a generation; what is only known once it is drawn is None before.

    Attributes
    ----------
    seconds, load_seconds
        Time of the drawing, and before it to load the model; 0 when it was ready.
    url
        Works for an hour without credentials.
    """

    model: str
    job_id: str
    name: str
    teacher: str
    sampler: str
    steps: int
    guidance_scale: float
    seconds: float | None = None
    load_seconds: float | None = None
    width: int | None = None
    height: int | None = None
    size: int | None = None
    sha256: str | None = None
    url: str | None = None


class GenerationState(ResourceState):
    """Pictures of one prompt from one seed, as the service described them at one moment.

    Attributes
    ----------
    waiting_message
        Why it is not drawn at once, while it waits.
    """

    job_id: str
    waiting_reason: str | None = None
    waiting_message: str | None = None
    prompt: str
    seed: int
    pictures: list[DrawnPicture]


class CaptionFile(Answer):
    """A file of captions that was uploaded; `spec` is how a job names it."""

    id: str
    name: str
    format: str
    size: int
    sha256: str
    created_at: datetime

    @property
    def spec(self) -> dict[str, str]:
        """What to give as ``captions`` of a job."""
        return {"kind": "uploaded", "id": self.id}


class StudentOption(Answer):
    """A preset size that fits a teacher."""

    student: str


class Teacher(Answer):
    """A model that a job may name as its teacher."""

    id: str
    family: str
    title: str | None = None
    description: str | None = None
    parameters: int
    licence: str | None = None
    revision: str
    students: list[StudentOption]


class WorkerState(Answer):
    """A worker, and what it runs.

    Attributes
    ----------
    device_count, memory_bytes
        Accelerators, and the memory of one; or cores of the processor, and the host's memory.
    state
        ``idle``, ``busy``, or ``silent`` when it gives no sign of life.
    job_ids, other_jobs
        The caller's own jobs that it runs, and how many of other tenants.
    """

    name: str
    host: str
    queue: str
    release: str
    device: str
    device_count: int
    memory_bytes: int | None = None
    state: str
    job_ids: list[str]
    other_jobs: int
    started_at: datetime
    last_heartbeat_at: datetime


class KeyState(Answer):
    """An API key as its tenant's admins see it: all but the key itself.

    Attributes
    ----------
    shown
        How the key begins.
    last_used_at
        To the minute.
    """

    id: str
    name: str
    shown: str
    scopes: list[str]
    created_by: str | None = None
    created_at: datetime
    expires_at: datetime | None = None
    revoked_at: datetime | None = None
    last_used_at: datetime | None = None


class CreatedKey(KeyState):
    """A key that was just made; ``key`` is the key itself, which the service never shows again."""

    key: str = Field(repr=False)


class Estimate(Answer):
    """What a job would take; times are there once a job of the same teacher has run through."""

    teacher: str
    student: str
    teacher_parameters: int
    student_parameters: int
    teacher_gmacs: float
    student_gmacs: float
    unet_bytes: int
    pipeline_bytes: int
    checkpoint_bytes: int
    training_memory_bytes: int
    drawn_pictures: int | None = None
    flops: dict[str, float] = {}
    seconds: dict[str, float] | None = None
    total_seconds: float | None = None


class JobEstimate(Estimate):
    """What a job was to take, and what it took; an ``error`` of 0.1 is a tenth too long."""

    taken_seconds: dict[str, float] = {}
    total_taken_seconds: float | None = None
    error: dict[str, float] | None = None
    total_error: float | None = None


class Measured(Answer):
    """What a model costs, and its scores by split of the captions."""

    parameters: int | None = None
    gmacs: float | None = None
    seconds_per_picture: float | None = None
    scores: dict[str, dict[str, float]] = {}


class ComparedStudent(Answer):
    """A student, and its teacher as the same job measured it."""

    job_id: str
    name: str
    finished_at: datetime | None = None
    training_steps: int
    batch_size: int
    sampler_steps: int
    pictures: int | None = None
    student: Measured
    teacher: Measured


class Page(Answer, Generic[Item]):
    """One page of a list; ``next`` is the cursor of the page that follows."""

    items: list[Item]
    has_more: bool = False
    next: str | None = None


class Comparison(Page[ComparedStudent]):
    """One page of the students of one teacher, the newest first."""

    items: list[ComparedStudent] = Field(alias="students")


class FieldProblem(Answer):
    """A field at fault, and what it may hold."""

    field: str
    message: str
    allowed: list[str] | None = None


class Problem(Answer):
    """Why the service refused a request, in the shape of RFC 9457."""

    type: str = "about:blank"
    title: str = "The request failed"
    status: int
    detail: str = ""
    request_id: str | None = None
    errors: list[FieldProblem] = []
