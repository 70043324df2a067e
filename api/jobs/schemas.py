"""What the service says about jobs: the shapes of its answers.

Answers are built from the store's rows here and nowhere else. Their fields are only ever added to.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, computed_field

from core.spec import DistillationSpec, student_name
from store import models
from store.endings import EXPLANATIONS
from store.models import ArtifactKind, Phase, Reason, Status

JOB_EXAMPLE: dict[str, Any] = {
    "id": "019ab2c4-7f1e-7c3a-9d52-0b6a4be1d9aa",
    "status": "running",
    "phase": "training",
    "reason": None,
    "message": None,
    "hint": None,
    "progress": 0.42,
    "eta_seconds": 171.0,
    "attempt": 1,
    "cancel_requested": False,
    "pause_requested": False,
    "save_requested": False,
    "sample_requested": False,
    "priority": 0,
    "max_runtime_s": 86_400.0,
    "not_before": None,
    "queue": "cpu",
    "teacher": "emoji-64",
    "student": "b-small",
    "version": 37,
    "created_at": "2026-03-02T10:15:00Z",
    "updated_at": "2026-03-02T10:18:20Z",
    "started_at": "2026-03-02T10:15:01Z",
    "finished_at": None,
}
_FILES = ("events", "metrics", "samples", "artifacts", "checkpoints", "logs", "weights")
_MOVES = ("cancel", "pause", "resume", "retry", "clone", "save-now", "sample-now")
_STUDENT_TYPE: Any = DistillationSpec.model_fields["student"].annotation
_STUDENT: TypeAdapter[Any] = TypeAdapter(_STUDENT_TYPE)
_REASONS = " ".join(f"`{reason}`: {known.sentence}" for reason, known in EXPLANATIONS.items())


class JobSummary(BaseModel):
    """A job in a list."""

    model_config = ConfigDict(json_schema_extra={"examples": [JOB_EXAMPLE]})

    id: str = Field(description="UUID of version 7, so ids sort by creation.")
    status: Status
    phase: Phase | None = Field(description="What a running job is at.")
    reason: Reason | None = Field(
        description=f"Why the job ended, when it did not succeed; or why it moved. {_REASONS}"
    )
    message: str | None = Field(description="The reason in words.")
    hint: str | None = Field(description="What to do about it.")
    progress: Annotated[float, Field(ge=0, le=1)]
    eta_seconds: float | None = Field(description="Estimated time to the end of the phase.")
    attempt: int = Field(description="How often a worker has taken the job.")
    cancel_requested: bool = Field(description="Its worker is asked to stop, for good.")
    pause_requested: bool = Field(description="Its worker is asked to stop, until the job is resumed.")
    save_requested: bool = Field(
        default=False, description="A checkpoint was asked for, of which its worker has yet to hear."
    )
    sample_requested: bool = Field(
        default=False, description="Pictures were asked for, of which its worker has yet to hear."
    )
    priority: int = Field(description="The highest of a tenant's jobs in a queue goes first.")
    max_runtime_s: float | None = Field(description="Seconds that the job may run.")
    not_before: datetime | None = Field(description="No worker takes it before this time.")
    queue: str = Field(description="Class of accelerator that the job waits for.")
    teacher: str
    student: str = Field(examples=["b-small", "width-0.75"])
    version: int = Field(
        description="Number of the job's last event. It grows with every change; the ETag is made from it."
    )
    created_at: datetime
    updated_at: datetime
    started_at: datetime | None
    finished_at: datetime | None

    @classmethod
    def of(cls, job: models.Job) -> Self:
        """Describe a row."""
        return cls.model_validate(cls._fields(job))

    @classmethod
    def _fields(cls, job: models.Job) -> dict[str, Any]:
        own = {name: getattr(job, name) for name in cls.model_fields if hasattr(job, name)}
        student = student_name(_STUDENT.validate_python(job.student))
        return own | {"student": student, "version": job.last_sequence}


class Transition(BaseModel):
    """A move of the job to a status."""

    model_config = ConfigDict(from_attributes=True)

    status: Status
    reason: Reason | None = Field(description="Why it moved.")
    attempt: int
    at: datetime

    @computed_field(description="The reason in words.")  # type: ignore[prop-decorator]  # as pydantic shows it
    @property
    def message(self) -> str | None:
        """What the table of reasons says."""
        return None if self.reason is None else EXPLANATIONS[self.reason].sentence

    @computed_field(description="What to do about it.")  # type: ignore[prop-decorator]
    @property
    def hint(self) -> str | None:
        """What the table of reasons advises."""
        return None if self.reason is None else EXPLANATIONS[self.reason].hint


class Job(JobSummary):
    """A job with its specification, its history of statuses and its result."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                JOB_EXAMPLE
                | {
                    "spec": {"teacher": "emoji-64", "student": "b-small"},
                    "transitions": [
                        {"status": "queued", "reason": None, "attempt": 0, "at": "2026-03-02T10:15:00Z"},
                        {"status": "running", "reason": None, "attempt": 1, "at": "2026-03-02T10:15:01Z"},
                    ],
                    "result": None,
                    "links": {"self": "/jobs/019ab2c4-7f1e-7c3a-9d52-0b6a4be1d9aa"},
                }
            ]
        }
    )

    spec: dict[str, Any] = Field(description="The specification with every default resolved.")
    transitions: list[Transition]
    result: dict[str, Any] | None = Field(description="What was measured, once the job has succeeded.")
    links: dict[str, str] = Field(description="Where the job's parts are.")

    @classmethod
    def as_accepted(cls, job: models.Job) -> Self:
        """Describe a job as it was when it was accepted, whatever has become of it.

        A repeated request gets the very answer that the first one got.
        """
        unset = dict.fromkeys(("phase", "reason", "message", "hint", "eta_seconds", "result"))
        first = {"progress": 0.0, "attempt": 0, "version": 1, "status": "queued"}
        first |= {"cancel_requested": False, "pause_requested": False}
        first |= {"save_requested": False, "sample_requested": False}
        times = {"updated_at": job.created_at, "started_at": None, "finished_at": None}
        fields = cls._fields(job) | unset | first | times
        return cls.model_validate(fields | {"transitions": fields["transitions"][:1]})

    @classmethod
    def _fields(cls, job: models.Job) -> dict[str, Any]:
        self_link = f"/jobs/{job.id}"
        links = {"self": self_link} | {part: f"{self_link}/{part}" for part in (*_FILES, *_MOVES)}
        return super()._fields(job) | {"links": links}


class JobEvent(BaseModel):
    """Something that happened to a job."""

    model_config = ConfigDict(
        from_attributes=True,
        json_schema_extra={
            "examples": [
                {
                    "sequence": 9,
                    "at": "2026-03-02T10:16:02Z",
                    "type": "progress",
                    "attempt": 1,
                    "data": {"phase": "training", "done": 120, "total": 2000, "unit": "steps"},
                }
            ]
        },
    )

    sequence: int = Field(description="1 for the first event of the job; there are no gaps.")
    at: datetime
    type: str = Field(
        description="`status`, `cancel_requested`, `pause_requested`, `save_requested`, `phase`, `progress`, "
        "`metrics`, `checkpoint`, `sample`, …"
    )
    attempt: int
    data: dict[str, Any]


class MetricPoint(BaseModel):
    """A metric's value at a training step."""

    step: int
    value: float


class MetricSeries(BaseModel):
    """One training curve."""

    name: str = Field(examples=["loss"])
    points: list[MetricPoint]
    has_more: bool = Field(description="Whether points of later steps follow; ask with `after_step`.")


class StoredFile(BaseModel):
    """A file that a job left, with a link to download it."""

    kind: ArtifactKind
    attempt: int
    step: int | None = Field(description="The training step it belongs to, of a checkpoint or sample.")
    path: str = Field(description="Path within the attempt.")
    size: int = Field(description="Bytes.")
    sha256: str
    created_at: datetime
    url: str = Field(description="A link that works for an hour without credentials, and serves ranges.")


class WeightsLink(BaseModel):
    """Where a student's weights are, for a while, and what they are."""

    url: str
    size: int
    sha256: str


class Checkpoint(BaseModel):
    """A complete checkpoint: training can go on from it."""

    attempt: int
    step: int
    files: Sequence[StoredFile]
