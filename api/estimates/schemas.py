"""What the service says about a job that has not been submitted."""

from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field


class Measurement(BaseModel):
    """The earlier job whose phases the times are reckoned from."""

    job_id: str
    queue: str = Field(description="Class of accelerator that it ran on.")
    finished_at: datetime


class Estimate(BaseModel):
    """What a job will take."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "teacher": "emoji-64",
                    "student": "b-small",
                    "teacher_parameters": 13_009_124,
                    "student_parameters": 6_999_844,
                    "teacher_gmacs": 0.3,
                    "student_gmacs": 0.2,
                    "unet_bytes": 14_025_000,
                    "pipeline_bytes": 58_000_000,
                    "checkpoint_bytes": 336_000_000,
                    "training_memory_bytes": 900_000_000,
                    "drawn_pictures": 48,
                    "flops": {"latents": 1.2e12, "training": 7.5e13, "evaluation": 5.1e12},
                    "seconds": {"latents": 4.0, "training": 151.0, "evaluation": 17.0},
                    "total_seconds": 172.0,
                    "measured_on": {
                        "job_id": "019ab2c4-7f1e-7c3a-9d52-0b6a4be1d9aa",
                        "queue": "cpu",
                        "finished_at": "2026-03-02T10:18:20Z",
                    },
                }
            ]
        }
    )

    teacher: str
    student: str = Field(description="The student that would be trained; of a budget, the one it chooses.")
    teacher_parameters: int = Field(description="Of the U-Net.")
    student_parameters: int = Field(description="Of the U-Net.")
    teacher_gmacs: float = Field(
        description="Milliards of multiply-accumulates of one pass of one picture through the U-Net's linear "
        "and convolution layers."
    )
    student_gmacs: float
    unet_bytes: int = Field(description="The student's U-Net weights as exported.")
    pipeline_bytes: int = Field(description="All weights of the exported folder.")
    checkpoint_bytes: int = Field(description="Disk that the checkpoints take.")
    training_memory_bytes: int = Field(description="Peak memory of the training, counted, not measured.")
    drawn_pictures: int | None = Field(
        description="Pictures that the teacher draws to train on; null where the service does not know how "
        "many captions there are."
    )
    flops: dict[str, float] = Field(description="Floating-point operations of each phase.")
    seconds: dict[str, float] | None = Field(
        description="Time of each phase, reckoned from an earlier job of the same teacher; null without one."
    )
    total_seconds: float | None
    measured_on: Measurement | None


class JobEstimate(Estimate):
    """What a submitted job was to take, and what it took."""

    taken_seconds: dict[str, float] = Field(
        description="What each phase took until now, all attempts together; one that lasts is not in it."
    )
    total_taken_seconds: float | None = Field(
        default=None,
        description="What the estimated phases took together; this and the errors are null until the job has "
        "succeeded, and where no time was estimated.",
    )
    error: dict[str, float] | None = Field(
        default=None,
        description="How far the estimated time of each phase was off: 0.1 is a tenth too long, -0.1 a tenth "
        "too short.",
    )
    total_error: float | None = Field(default=None, description="The same of all these phases together.")
