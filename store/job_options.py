"""How a job is treated, beside what it shall do: options that the specification does not hold.

They are columns of the job, not part of its specification, so that they change nothing about its result.
"""

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

MOST_URGENT = 100
LONGEST_RUNTIME_SECONDS = 366 * 86_400


class JobOptions(BaseModel):
    """When and for how long a job may run, and which goes first."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    priority: int = Field(
        default=0,
        ge=-MOST_URGENT,
        le=MOST_URGENT,
        description="Of a tenant's jobs that wait in a queue the one with the highest goes first, then the "
        "oldest.",
    )
    max_runtime_s: float | None = Field(
        default=None,
        gt=0,
        le=LONGEST_RUNTIME_SECONDS,
        description="Seconds that it may run, all its attempts together; then it ends with a checkpoint and "
        "the reason `max_runtime`. Time in the queue or paused does not count.",
    )
    not_before: AwareDatetime | None = Field(
        default=None, description="No worker takes it before this time, at most a year from now."
    )
