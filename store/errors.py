"""The errors that the service raises on purpose.

Each class has a stable ``code``, which the API publishes, and says which field is at fault where there is
one. This module knows nothing of HTTP: the API maps classes to status codes.
"""

from typing import ClassVar, Literal


class CondenserError(Exception):
    """Base of every deliberate error.

    Parameters
    ----------
    detail
        One sentence for the user about this occurrence.
    field
        Dotted path of the input field at fault.
    allowed
        Values that the field could have had instead.
    """

    code: ClassVar[str] = "internal_error"
    title: ClassVar[str] = "Something went wrong"

    def __init__(self, detail: str, *, field: str | None = None, allowed: list[str] | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.field = field
        self.allowed = allowed


class NotFoundError(CondenserError):
    """The thing asked for does not exist."""

    code = "not_found"
    title = "Not found"


class BadFileLinkError(CondenserError):
    """A link to a file was changed, or its time is over."""

    code = "bad_file_link"
    title = "The link does not open this file"


class UnsatisfiableRangeError(CondenserError):
    """A range of a file was asked for that the file does not have."""

    code = "unsatisfiable_range"
    title = "The file has no such range"


class MissingSettingError(CondenserError):
    """A setting that this process cannot do without is not set."""

    code = "missing_setting"
    title = "A setting is missing"


class UnauthenticatedError(CondenserError):
    """The request does not say who sends it, or not in a way that can be believed."""

    code = "missing_api_key"
    title = "An API key is needed"


class MalformedApiKeyError(UnauthenticatedError):
    """What was sent as a key cannot be one."""

    code = "malformed_api_key"
    title = "Malformed API key"


class InvalidApiKeyError(UnauthenticatedError):
    """The key was never made here, or was revoked."""

    code = "invalid_api_key"
    title = "Invalid API key"


class ExpiredApiKeyError(UnauthenticatedError):
    """The key was good until a time that is over."""

    code = "expired_api_key"
    title = "The API key has expired"


class MissingScopeError(CondenserError):
    """The key is good, but does not allow this.

    Attributes
    ----------
    scope
        What it would have to allow.
    """

    code = "missing_scope"
    title = "The API key does not allow this"

    def __init__(self, detail: str, *, scope: str, field: str | None = None) -> None:
        super().__init__(detail, field=field)
        self.scope = scope


class ConflictError(CondenserError):
    """The request is sound but does not fit the present state."""

    code = "conflict"
    title = "Conflict with the present state"


class JobFinishedError(ConflictError):
    """The job has ended and cannot be moved any more."""

    code = "job_finished"
    title = "The job has already ended"


class JobNotEndedError(ConflictError):
    """Only a job that has failed or was cancelled can be tried again."""

    code = "job_not_ended"
    title = "The job has not ended"


class JobRunningError(ConflictError):
    """A worker is at work on the job, which must first be cancelled or paused."""

    code = "job_running"
    title = "The job is running"


class JobNotTrainingError(ConflictError):
    """Only a running training can be asked for a checkpoint or for pictures between two of its steps."""

    code = "job_not_training"
    title = "The job is not training"


class JobNotSucceededError(ConflictError):
    """Only a job that has succeeded has a student that can draw."""

    code = "job_not_succeeded"
    title = "The job has not succeeded"


class GenerationEndedError(ConflictError):
    """The generation has ended and cannot be cancelled any more."""

    code = "generation_ended"
    title = "The generation has already ended"


class CancelRequestedError(ConflictError):
    """The job is about to be cancelled."""

    code = "cancel_requested"
    title = "The job is being cancelled"


class QuotaExceededError(ConflictError):
    """The tenant has as much of something as it may have.

    Attributes
    ----------
    quota
        Name of the limit.
    limit, present
        What it may have, and what it has or asks for; None when that is not known.
    """

    code = "quota_exceeded"
    title = "The quota is used up"

    def __init__(
        self, detail: str, *, quota: str, limit: int, present: int | None, field: str | None = None
    ) -> None:
        super().__init__(detail, field=field)
        self.quota = quota
        self.limit = limit
        self.present = present


class CaptionsGoneError(ConflictError):
    """The captions that a job was submitted with have been deleted."""

    code = "captions_gone"
    title = "The captions were deleted"


class CaptionsInUseError(ConflictError):
    """A job that has not ended reads the captions."""

    code = "captions_in_use"
    title = "The captions are in use"


class UploadExpiredError(ConflictError):
    """An upload took so long that what it had stored was removed."""

    code = "upload_expired"
    title = "The upload took too long"


class RemoteObjectError(CondenserError):
    """An object that a user named cannot be read."""

    code = "remote_object"
    title = "An object cannot be read"


class UnusableInputError(CondenserError):
    """What a job is to work on can no longer be had as it was when the job was accepted.

    Parameters
    ----------
    reason
        Why the job ends.
    detail
        What is wrong.
    hint
        What to do about it.
    """

    code = "unusable_input"
    title = "The job's input cannot be used"

    def __init__(self, reason: Literal["bad_teacher", "bad_captions"], detail: str, hint: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.hint = hint


class InvalidInputError(CondenserError):
    """A field of the request has a value that cannot be used."""

    code = "invalid_input"
    title = "Invalid input"


class InvalidCursorError(InvalidInputError):
    """The ``after`` cursor did not come from this service."""

    code = "invalid_cursor"
    title = "Invalid cursor"


class IdempotencyConflictError(CondenserError):
    """The idempotency key was used before with another request body."""

    code = "idempotency_key_reused"
    title = "Idempotency key used with another request"


class UnavailableError(CondenserError):
    """A server that we depend on does not answer; trying again later may help."""

    code = "unavailable"
    title = "A dependency is unavailable"


class RequestInProgressError(ConflictError):
    """The first request with the same idempotency key has not been answered yet."""

    code = "request_in_progress"
    title = "The first request with this key is in progress"


class TooManyWebhooksError(ConflictError):
    """No further webhook can be registered."""

    code = "too_many_webhooks"
    title = "There are too many webhooks"


class WebhookDisabledError(ConflictError):
    """The webhook gets nothing until it is enabled again."""

    code = "webhook_disabled"
    title = "The webhook is disabled"


class WebhooksNotConfiguredError(ConflictError):
    """The operator has set no key under which webhooks' secrets could be kept."""

    code = "webhooks_not_configured"
    title = "Webhooks are not configured"


class DestinationRefusedError(CondenserError):
    """A URL leads to an address that the service must not call on a user's behalf."""

    code = "destination_refused"
    title = "The destination must not be called"


class DestinationFailedError(CondenserError):
    """A destination that a user chose cannot be reached, or does not answer."""

    code = "destination_failed"
    title = "The destination does not answer"


class LeaseLostError(CondenserError):
    """The caller's lease on a job is not the current one; it must stop and write nothing more."""

    code = "lease_lost"
    title = "The lease on the job was lost"


class CorruptObjectError(CondenserError):
    """A stored object does not have the content that was recorded for it."""

    code = "corrupt_object"
    title = "A stored object is damaged"


class MissingObjectError(CorruptObjectError):
    """There is no object where there was one."""
