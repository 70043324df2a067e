"""Errors of the API itself, beside those that the store raises."""

from store.errors import CondenserError, ConflictError


class WeightsNotReadyError(ConflictError):
    """The job has not ended, so it has no weights yet."""

    code = "weights_not_ready"
    title = "The weights are not ready"


class MalformedIdempotencyKeyError(CondenserError):
    """The Idempotency-Key header is not a key."""

    code = "malformed_idempotency_key"
    title = "Malformed idempotency key"


class UnsupportedMediaTypeError(CondenserError):
    """The request's body is not announced as JSON."""

    code = "unsupported_media_type"
    title = "The body must be JSON"


class RequestInProgressError(ConflictError):
    """The first request with the same idempotency key has not been answered yet."""

    code = "request_in_progress"
    title = "The first request with this key is in progress"


class ForeignFormError(CondenserError):
    """A form that none of our own pages is known to have sent."""

    code = "cross_site_request"
    title = "Cross-site requests are refused"
