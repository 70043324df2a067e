"""What the service says about workers."""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

WorkerState = Literal["idle", "busy", "silent"]


class Worker(BaseModel):
    """A process that takes jobs and trains."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "name": "gpu-07:4121",
                    "host": "gpu-07",
                    "queue": "gpu",
                    "release": "0.1.0",
                    "device": "NVIDIA H100 80GB HBM3",
                    "device_count": 1,
                    "memory_bytes": 85520809984,
                    "state": "busy",
                    "job_ids": ["019ab2c4-7f1e-7c3a-9d52-0b6a4be1d9aa"],
                    "other_jobs": 0,
                    "started_at": "2026-03-02T08:00:00Z",
                    "last_heartbeat_at": "2026-03-02T10:18:20Z",
                }
            ]
        }
    )

    name: str = Field(description="As it claims jobs: host and process.")
    host: str
    queue: str = Field(description="It takes jobs of this queue.")
    release: str = Field(description="Of the software that it runs.")
    device: str = Field(description="The accelerator, or the processor where it has none.")
    device_count: int = Field(description="Accelerators of that name, or cores of the processor.")
    memory_bytes: int | None = Field(description="Of one accelerator, or of the host; null if unknown.")
    state: WorkerState = Field(
        description="`silent` when it has given no sign of life for as long as a lease lasts; its jobs are "
        "then taken back."
    )
    job_ids: list[str] = Field(description="The caller's own jobs that it runs.")
    other_jobs: int = Field(description="How many jobs of other tenants it runs.")
    started_at: datetime
    last_heartbeat_at: datetime
