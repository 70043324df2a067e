"""RFC 9457 problem documents: the one shape of every error that leaves the service.

A problem names a stable code, the field at fault and the allowed values. It must never carry a stack trace,
an SQL statement, a path of the server or any other internal: what is not one of our own errors is answered as
a plain ``internal_error`` and logged with the request's id.
"""

import http
import json
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.responses import Response

from api.errors import (
    ForeignFormError,
    MalformedIdempotencyKeyError,
    RateLimitedError,
    TooManyUploadsError,
    UnsupportedMediaTypeError,
)
from api.field_errors import FieldError, explain_validation_error
from api.jobs.requests import Submission
from store import errors
from store.key_format import masked

PROBLEM_MEDIA_TYPE = "application/problem+json"
TYPE_PREFIX = "urn:condenser:problem:"
REQUEST_ID_HEADER = "X-Request-Id"
RETRY_AFTER_SECONDS = 5

LOGGER = logging.getLogger(__name__)

STATUS_OF_ERROR: tuple[tuple[type[errors.CondenserError], int], ...] = (
    (MalformedIdempotencyKeyError, 400),
    (errors.UnauthenticatedError, 401),
    (errors.BadFileLinkError, 403),
    (errors.MissingScopeError, 403),
    (ForeignFormError, 403),
    (errors.NotFoundError, 404),
    (errors.ConflictError, 409),
    (UnsupportedMediaTypeError, 415),
    (errors.UnsatisfiableRangeError, 416),
    (errors.InvalidInputError, 422),
    (RateLimitedError, 429),
    (errors.IdempotencyConflictError, 422),
    (errors.UnavailableError, 503),
    (TooManyUploadsError, 503),
)
"""The first class that an error is an instance of decides its status; anything else is a 500."""


def status_of_error(error: errors.CondenserError) -> int | None:
    """Return the status that an error is answered with; None for one that no client can do anything about."""
    return next((status for kind, status in STATUS_OF_ERROR if isinstance(error, kind)), None)


class QuotaState(BaseModel):
    """A limit that a request would have passed."""

    name: str = Field(examples=["queued_jobs"])
    limit: int = Field(description="What the tenant may have.")
    present: int | None = Field(default=None, description="What it has, or what the request asks for.")


class Problem(BaseModel):
    """Why a request was refused, in the shape of RFC 9457."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "type": "urn:condenser:problem:invalid_input",
                    "title": "The request is not valid",
                    "status": 422,
                    "detail": "student: Input should be 'b-base', 'b-small' or 'b-tiny'",
                    "instance": "/jobs",
                    "request_id": "4f6c0c9d1d1e4a5f8a0b8e2f7d3c1b2a",
                    "errors": [
                        {
                            "field": "student",
                            "message": "Input should be 'b-base', 'b-small' or 'b-tiny'",
                            "allowed": ["b-base", "b-small", "b-tiny"],
                        }
                    ],
                }
            ]
        }
    )

    type: str = Field(description="Stable name of the kind of problem, for programs to compare.")
    title: str = Field(description="The kind of problem in words.")
    status: int = Field(description="The HTTP status code.")
    detail: str = Field(description="What went wrong with this request, for people to read.")
    instance: str = Field(description="Path of the request.")
    request_id: str | None = Field(default=None, description="Quote this id when you report the problem.")
    errors: list[FieldError] = Field(default=[], description="The fields at fault.")
    quota: QuotaState | None = Field(default=None, description="The limit, of a problem `quota_exceeded`.")


class ProblemResponse(Response):
    """A problem document on its way out."""

    media_type = PROBLEM_MEDIA_TYPE

    def __init__(
        self,
        request: Request,
        *,
        status: int,
        code: str,
        title: str,
        detail: str,
        field_errors: Sequence[FieldError] = (),
        headers: Mapping[str, str] | None = None,
        quota: QuotaState | None = None,
    ) -> None:
        request_id = request.scope.get("request_id")
        problem = Problem(
            type=TYPE_PREFIX + code,
            title=title,
            status=status,
            detail=detail,
            instance=request.url.path,
            request_id=request_id,
            errors=list(field_errors),
            quota=quota,
        )
        super().__init__(content=problem, status_code=status, headers=headers)

    def render(self, content: Any) -> bytes:
        """Encode the document; a lone surrogate that a client sent comes back as a question mark.

        An API key that a client put into a path or a field's name does not come back.
        """
        text = masked(json.dumps(content.model_dump(exclude_none=True), ensure_ascii=False))
        return text.encode("utf-8", errors="replace")


def internal_error(request: Request) -> ProblemResponse:
    """Answer an unexpected error without a word about its cause."""
    return ProblemResponse(
        request,
        status=500,
        code="internal_error",
        title="Internal error",
        detail="The service failed to answer this request. The failure is logged under the request id.",
    )


def unavailable(request: Request, error: errors.UnavailableError) -> ProblemResponse:
    """Answer that a dependency is away; which one, and where it should be, is for the log only."""
    LOGGER.warning("request %s: %s", request.scope.get("request_id"), error.detail)
    return ProblemResponse(
        request,
        status=503,
        code=error.code,
        title=error.title,
        detail="A server that this service depends on does not answer. Try again.",
        headers={"Retry-After": str(RETRY_AFTER_SECONDS)},
    )


async def handle_condenser_error(request: Request, error: Exception) -> Response:
    """Answer one of our own typed errors."""
    if not isinstance(error, errors.CondenserError):
        raise error
    status = status_of_error(error)
    if status is None:
        raise error
    if isinstance(error, errors.UnavailableError):
        return unavailable(request, error)
    field_errors = (
        [FieldError(field=error.field, message=error.detail, allowed=error.allowed)] if error.field else []
    )
    return ProblemResponse(
        request,
        status=status,
        code=error.code,
        title=error.title,
        detail=error.detail,
        field_errors=field_errors,
        headers=_headers(error, status),
        quota=_quota(error),
    )


def _quota(error: errors.CondenserError) -> QuotaState | None:
    if not isinstance(error, errors.QuotaExceededError):
        return None
    return QuotaState(name=error.quota, limit=error.limit, present=error.present)


def _headers(error: errors.CondenserError, status: int) -> dict[str, str] | None:
    """Say in the terms of RFC 6750 what a request without a good key lacks, or when to ask again."""
    if isinstance(error, RateLimitedError):
        return {"Retry-After": str(error.retry_after_seconds)}
    if status == http.HTTPStatus.SERVICE_UNAVAILABLE:
        return {"Retry-After": str(RETRY_AFTER_SECONDS)}
    challenge = 'Bearer realm="condenser"'
    if isinstance(error, errors.MissingScopeError):
        return {"WWW-Authenticate": f'{challenge}, error="insufficient_scope", scope="{error.scope}"'}
    if not isinstance(error, errors.UnauthenticatedError):
        return None
    is_wrong = type(error) is not errors.UnauthenticatedError
    return {"WWW-Authenticate": f'{challenge}, error="invalid_token"' if is_wrong else challenge}


async def handle_validation_error(request: Request, error: Exception) -> Response:
    """Answer a body, query or header that does not fit its schema."""
    if not isinstance(error, RequestValidationError):
        raise error
    field_errors = explain_validation_error(error, _body_model(request))
    malformed = any(entry["type"] == "json_invalid" for entry in error.errors())
    return ProblemResponse(
        request,
        status=400 if malformed else 422,
        code="malformed_json" if malformed else errors.InvalidInputError.code,
        title="The body is not JSON" if malformed else errors.InvalidInputError.title,
        detail="; ".join(f"{entry.field}: {entry.message}" for entry in field_errors[:3]),
        field_errors=field_errors,
    )


def _body_model(request: Request) -> type[BaseModel]:
    """Find the shape that the route's body should have; a clone's changes are those of a submission."""
    body_field = getattr(request.scope.get("route"), "body_field", None)
    annotation = None if body_field is None else body_field.field_info.annotation
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return Submission


async def handle_http_exception(request: Request, error: Exception) -> Response:
    """Answer what the framework itself refuses: no such route, wrong method, unreadable body."""
    if not isinstance(error, HTTPException):
        raise error
    status = http.HTTPStatus(error.status_code)
    return ProblemResponse(
        request,
        status=error.status_code,
        code=status.name.lower(),
        title=status.phrase,
        detail=error.detail,
        headers=error.headers,
    )
