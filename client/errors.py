"""The errors that the client raises: a class for each thing that a caller may want to handle."""

import http
from typing import TYPE_CHECKING

from client.models import GenerationState, JobState, Problem, ResourceState

if TYPE_CHECKING:
    from pathlib import Path


class ClientError(Exception):
    """Base of every error of the client."""


class MalformedKeyError(ClientError):
    """What was given as an API key cannot be sent as one."""


class MalformedAddressError(ClientError):
    """What was given as the service's address is none."""


class MalformedValueError(ClientError):
    """A value cannot be sent: a number that is not finite, or a text that is not Unicode."""


class UnexpectedAnswerError(ClientError):
    """Something answered in the service's place: a page to sign in, another server, a redirect."""


class ApiUnreachableError(ClientError):
    """The service did not answer, however often it was asked."""


class ApiError(ClientError):
    """The service refused a request.

    Attributes
    ----------
    problem
        The service's own words; its ``type`` is stable and meant for programs.
    """

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        super().__init__(self._text())

    def _text(self) -> str:
        fields = [
            f"{error.field}: {error.message}"
            + (f" (allowed: {', '.join(error.allowed)})" if error.allowed else "")
            for error in self.problem.errors
        ]
        return "\n".join([self.problem.title, *(fields or filter(None, [self.problem.detail]))])


class InvalidRequestError(ApiError):
    """The request itself is wrong; `ApiError.problem` names the fields at fault and their allowed values."""


class UnauthenticatedError(ApiError):
    """The service wants an API key, or a better one than it got."""


class ForbiddenError(ApiError):
    """The API key does not allow this."""


class NotFoundError(ApiError):
    """The thing asked for does not exist."""


class ConflictError(ApiError):
    """The request is sound but does not fit the present state, as cancelling a job that has ended."""


class RateLimitedError(ApiError):
    """More requests were sent with the key than may be, and patience did not help."""


class UnavailableError(ApiError):
    """The service is not there behind what stands before it, or a server that it depends on is not."""


class JobFailedError(ClientError):
    """A job that was waited for ended without success.

    Attributes
    ----------
    job
        Its last state, with the reason, a message and a hint.
    """

    def __init__(self, job: JobState) -> None:
        self.job = job
        super().__init__(_ending("job", job))


class GenerationFailedError(ClientError):
    """Pictures that were waited for were not drawn.

    Attributes
    ----------
    generation
        Its last state, with the reason, a message and a hint.
    """

    def __init__(self, generation: GenerationState) -> None:
        self.generation = generation
        super().__init__(_ending("generation", generation))


def _ending(kind: str, state: ResourceState) -> str:
    words = [f"{kind} {state.id} {state.status}", state.reason, state.message, state.hint]
    return ": ".join(word for word in words if word)


class WaitTimeoutError(ClientError):
    """A job or a generation had not ended when the time to wait was over; a job goes on."""


class DownloadError(ClientError):
    """A file did not arrive as the service announced it, or there is no place for it."""


class UploadError(ClientError):
    """A file did not arrive at the service as it was sent."""


class DirectoryTakenError(DownloadError):
    """The folder to download into holds something else than an earlier student as it was downloaded."""

    def __init__(self, directory: "Path") -> None:
        super().__init__(
            f"{directory} holds other files, which would be lost; choose a folder that is empty or not there "
            "yet, or one that holds a student and nothing else"
        )


_CLASSES: dict[int, type[ApiError]] = {
    http.HTTPStatus.BAD_REQUEST: InvalidRequestError,
    http.HTTPStatus.UNAUTHORIZED: UnauthenticatedError,
    http.HTTPStatus.FORBIDDEN: ForbiddenError,
    http.HTTPStatus.NOT_FOUND: NotFoundError,
    http.HTTPStatus.CONFLICT: ConflictError,
    http.HTTPStatus.REQUEST_ENTITY_TOO_LARGE: InvalidRequestError,
    http.HTTPStatus.UNPROCESSABLE_ENTITY: InvalidRequestError,
    http.HTTPStatus.TOO_MANY_REQUESTS: RateLimitedError,
    http.HTTPStatus.BAD_GATEWAY: UnavailableError,
    http.HTTPStatus.SERVICE_UNAVAILABLE: UnavailableError,
    http.HTTPStatus.GATEWAY_TIMEOUT: UnavailableError,
}


def error_of(problem: Problem) -> ApiError:
    """Make the error that fits a problem's status."""
    return _CLASSES.get(problem.status, ApiError)(problem)
