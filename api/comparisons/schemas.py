"""What the service says about the students of one teacher."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field

SPLITS = ("drawn", "text_only", "held_out")


class Measured(BaseModel):
    """What a model costs, and how well it draws."""

    parameters: int | None = Field(description="Of the U-Net.")
    gmacs: float | None = Field(description="Milliards of multiply-accumulates of one pass of one picture.")
    seconds_per_picture: float | None = Field(description="Measured on the job's own machine.")
    scores: dict[str, dict[str, float]] = Field(
        description="By split of the captions (`drawn`, `text_only`, `held_out`) and by score."
    )
    intervals: dict[str, dict[str, tuple[float, float]]] = Field(
        description="The 95 % interval of each score, where the job asked for intervals."
    )

    @classmethod
    def of(cls, result: Mapping[str, Any], model: str) -> Self:
        """Read one model's figures from a job's result."""
        cost = result.get(model) or {}
        milliseconds = cost.get("milliseconds_per_picture")
        splits = {split: result[split] for split in SPLITS if result.get(split)}
        return cls(
            parameters=cost.get("parameters"),
            gmacs=cost.get("gmacs"),
            seconds_per_picture=None if milliseconds is None else milliseconds / 1_000,
            scores={split: figures[model] for split, figures in splits.items()},
            intervals={split: figures["intervals"][model] for split, figures in splits.items()},
        )


class ComparedStudent(BaseModel):
    """A student, and its teacher as the same job measured it: on the same machine, with the same captions."""

    job_id: str
    name: str = Field(examples=["b-small"])
    finished_at: datetime | None
    training_steps: int
    batch_size: int
    sampler_steps: int = Field(description="Sampler steps of a picture.")
    pictures: int | None = Field(description="Pictures that each score was measured on.")
    student: Measured
    teacher: Measured


class Comparison(BaseModel):
    """The students of one teacher, the newest first."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "teacher": "emoji-64",
                    "students": [
                        {
                            "job_id": "019ab2c4-7f1e-7c3a-9d52-0b6a4be1d9aa",
                            "name": "b-small",
                            "finished_at": "2026-03-02T10:18:20Z",
                            "training_steps": 450,
                            "batch_size": 48,
                            "sampler_steps": 20,
                            "pictures": 48,
                            "student": {
                                "parameters": 6_999_844,
                                "gmacs": 0.2,
                                "seconds_per_picture": 0.11,
                                "scores": {"drawn": {"frechet_distance": 0.09, "nearest_top1": 0.6}},
                                "intervals": {"drawn": {"frechet_distance": [0.07, 0.12]}},
                            },
                            "teacher": {
                                "parameters": 13_009_124,
                                "gmacs": 0.3,
                                "seconds_per_picture": 0.19,
                                "scores": {"drawn": {"frechet_distance": 0.05, "nearest_top1": 0.9}},
                                "intervals": {"drawn": {"frechet_distance": [0.04, 0.06]}},
                            },
                        }
                    ],
                    "has_more": False,
                    "next": None,
                }
            ]
        }
    )

    teacher: str
    students: list[ComparedStudent]
    has_more: bool = Field(default=False, description="Whether older ones follow.")
    next: str | None = Field(default=None, description="Pass it as `after` to get the page that follows.")
