"""What clients ask of a job's models, and what the service says about it."""

from datetime import datetime
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from core.spec import Caption, SamplerName
from store import models
from store.generation_endings import EXPLANATIONS
from store.interactive_capacity import InteractiveCapacity, WaitingReason
from store.models import GenerationReason, GenerationStatus

MAX_STEPS = 100
MAX_SEED = 2**32 - 1
WAITING_MESSAGES: dict[WaitingReason, str] = {
    "no_worker": "No interactive worker has been heard of lately. It is drawn once one is there.",
    "workers_busy": "Every interactive worker is drawing something else. It is drawn next.",
}
_REASONS = " ".join(f"`{reason}`: {known.sentence}" for reason, known in EXPLANATIONS.items())
_JOB_ID = "019ab2c4-7f1e-7c3a-9d52-0b6a4be1d9aa"


class ModelChoice(BaseModel):
    """A model that draws: the teacher or the student of a job."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: Literal["teacher", "student"]
    job_id: str | None = Field(
        default=None,
        max_length=64,
        description="Another job of yours that has succeeded; the job of the path by default.",
    )


class GenerationRequest(BaseModel):
    """What to draw, and how."""

    model_config = ConfigDict(extra="forbid")

    prompt: Caption = Field(description="What the pictures are to show.")
    seed: int | None = Field(
        default=None,
        ge=0,
        le=MAX_SEED,
        description="Both models begin with the same noise; chosen by chance if left out.",
    )
    steps: int | None = Field(
        default=None,
        ge=1,
        le=MAX_STEPS,
        description="Sampler steps of every model; by default those that each was evaluated with.",
    )
    guidance_scale: float | None = Field(
        default=None,
        ge=1,
        le=30,
        description="Guidance of every model, 1 for none; by default as each was evaluated.",
    )
    sampler: SamplerName | None = Field(
        default=None, description="Sampler of every model; by default as each was evaluated."
    )
    models: list[ModelChoice] = Field(
        default=[ModelChoice(model="teacher"), ModelChoice(model="student")],
        min_length=1,
        max_length=2,
        description="Which models draw: the job's teacher and its student by default.",
    )

    @model_validator(mode="after")
    def _differ(self) -> Self:
        if len(set(self.models)) < len(self.models):
            raise ValueError("models names the same model twice")
        return self


class GenerationPicture(BaseModel):
    """One model's part: how it draws, and its picture once that is drawn."""

    model: Literal["teacher", "student"]
    job_id: str = Field(description="The job whose teacher or student it is.")
    name: str = Field(description="The teacher's id, or the student's size.", examples=["b-small"])
    teacher: str
    sampler: str
    steps: int
    guidance_scale: float
    seconds: float | None = Field(description="Time of the drawing, without loading; null until it is drawn.")
    load_seconds: float | None = Field(description="Time to load the model; 0 when it was ready.")
    width: int | None
    height: int | None
    size: int | None = Field(description="Bytes of the PNG.")
    sha256: str | None
    url: str | None = Field(description="A link to the PNG that works for an hour without credentials.")


class Generation(BaseModel):
    """Pictures of one prompt from one seed, by one or two models."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "019ab2d0-11aa-7c3a-9d52-0b6a4be1d9ab",
                    "job_id": _JOB_ID,
                    "status": "queued",
                    "reason": None,
                    "message": None,
                    "hint": None,
                    "waiting_reason": "no_worker",
                    "waiting_message": WAITING_MESSAGES["no_worker"],
                    "prompt": "red apple",
                    "seed": 7,
                    "pictures": [
                        {
                            "model": "student",
                            "job_id": _JOB_ID,
                            "name": "b-small",
                            "teacher": "emoji-64",
                            "sampler": "dpm-solver++",
                            "steps": 20,
                            "guidance_scale": 7.5,
                            "seconds": None,
                            "load_seconds": None,
                            "width": None,
                            "height": None,
                            "size": None,
                            "sha256": None,
                            "url": None,
                        }
                    ],
                    "version": 1,
                    "created_at": "2026-03-02T10:20:00Z",
                    "started_at": None,
                    "finished_at": None,
                }
            ]
        }
    )

    id: str
    job_id: str = Field(description="The job that it was asked of.")
    status: GenerationStatus = Field(
        description="`expired`: nobody asked about it any more, and it was not drawn."
    )
    reason: GenerationReason | None = Field(description=f"Why it did not succeed. {_REASONS}")
    message: str | None = Field(description="The reason in words.")
    hint: str | None = Field(description="What to do about it.")
    waiting_reason: WaitingReason | None = Field(
        description="Why a queued one is not drawn at once; null when it is about to be."
    )
    waiting_message: str | None = Field(description="That in words.")
    prompt: str
    seed: int
    pictures: list[GenerationPicture] = Field(description="One of each model, in the order of the request.")
    version: int = Field(description="Grows with every change; the ETag is made from it.")
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None

    @classmethod
    def of(cls, row: models.Generation, urls: list[str | None], capacity: InteractiveCapacity | None) -> Self:
        """Describe a row, with a link to each picture that there is."""
        own: dict[str, Any] = {name: getattr(row, name) for name in cls.model_fields if hasattr(row, name)}
        waits = row.status == "queued" and capacity is not None
        waiting_reason = capacity.waiting_reason if waits and capacity is not None else None
        drawn = ("seconds", "load_seconds", "width", "height", "size", "sha256")
        pictures = [
            {**dict.fromkeys(drawn), **drawing, "url": url}
            for drawing, url in zip(row.drawings, urls, strict=True)
        ]
        return cls.model_validate(
            own
            | {
                "pictures": pictures,
                "waiting_reason": waiting_reason,
                "waiting_message": WAITING_MESSAGES[waiting_reason] if waiting_reason else None,
            }
        )
