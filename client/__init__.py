"""The typed Python client of a Condenser service, and the ``condenser`` command on top of it.

::

    from client import Condenser

    with Condenser("http://127.0.0.1:8000") as condenser:
        job = condenser.jobs.create({"teacher": "emoji-64", "student": "b-small"})
        job.wait(on_progress=lambda job: log.info("%s %.2f", job.state.phase, job.state.progress))
        job.download("my-student")

It speaks HTTP only: it never imports the service, and nothing here imports torch.
"""

from client.captions import Captions
from client.condenser import Condenser
from client.errors import (
    ApiError,
    ApiUnreachableError,
    ClientError,
    ConflictError,
    DownloadError,
    InvalidRequestError,
    JobFailedError,
    NotFoundError,
    UnavailableError,
    UploadError,
    WaitTimeoutError,
)
from client.jobs import Job, Jobs
from client.models import CaptionFile, Event, JobState, Problem, Teacher

__all__ = [
    "ApiError",
    "ApiUnreachableError",
    "CaptionFile",
    "Captions",
    "ClientError",
    "Condenser",
    "ConflictError",
    "DownloadError",
    "Event",
    "InvalidRequestError",
    "Job",
    "JobFailedError",
    "JobState",
    "Jobs",
    "NotFoundError",
    "Problem",
    "Teacher",
    "UnavailableError",
    "UploadError",
    "WaitTimeoutError",
]
