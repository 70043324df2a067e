"""The typed Python client of a Condenser service, and the ``condenser`` command on top of it.

::

    from client import Condenser

    with Condenser("http://127.0.0.1:8000", api_key) as condenser:
        job = condenser.jobs.create({"teacher": "emoji-64", "student": "b-small"})
        job.wait(on_progress=lambda job: log.info("%s %.2f", job.state.phase, job.state.progress))
        job.download("my-student")

`AsyncCondenser` is the same for an event loop: every method of the same name is awaited, every iterator is
asynchronous. It speaks HTTP only: it never imports the service, and nothing here imports torch.
"""

from client.asynchronous.captions import AsyncCaptions
from client.asynchronous.condenser import AsyncCondenser
from client.asynchronous.generations import AsyncGeneration
from client.asynchronous.jobs import AsyncJob, AsyncJobs
from client.asynchronous.keys import AsyncKeys
from client.captions import Captions
from client.condenser import Condenser
from client.errors import (
    ApiError,
    ApiUnreachableError,
    ClientError,
    ConflictError,
    DownloadError,
    ForbiddenError,
    GenerationFailedError,
    InvalidRequestError,
    JobFailedError,
    NotFoundError,
    RateLimitedError,
    UnauthenticatedError,
    UnavailableError,
    UnexpectedAnswerError,
    UploadError,
    WaitTimeoutError,
)
from client.generations import Generation
from client.jobs import Job, Jobs
from client.keys import Keys
from client.models import (
    CaptionFile,
    CreatedKey,
    DrawnPicture,
    Event,
    GenerationState,
    JobState,
    KeyState,
    Problem,
    Teacher,
)

__all__ = [
    "ApiError",
    "ApiUnreachableError",
    "AsyncCaptions",
    "AsyncCondenser",
    "AsyncGeneration",
    "AsyncJob",
    "AsyncJobs",
    "AsyncKeys",
    "CaptionFile",
    "Captions",
    "ClientError",
    "Condenser",
    "ConflictError",
    "CreatedKey",
    "DownloadError",
    "DrawnPicture",
    "Event",
    "ForbiddenError",
    "Generation",
    "GenerationFailedError",
    "GenerationState",
    "InvalidRequestError",
    "Job",
    "JobFailedError",
    "JobState",
    "Jobs",
    "KeyState",
    "Keys",
    "NotFoundError",
    "Problem",
    "RateLimitedError",
    "Teacher",
    "UnauthenticatedError",
    "UnavailableError",
    "UnexpectedAnswerError",
    "UploadError",
    "WaitTimeoutError",
]
