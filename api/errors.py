"""Errors of the API itself, beside those that the store raises."""

from store.errors import CondenserError, ConflictError, NotFoundError


class WeightsNotReadyError(ConflictError):
    """The job has not ended, so it has no weights yet."""

    code = "weights_not_ready"
    title = "The weights are not ready"


class WeightsLeftOutError(NotFoundError):
    """The job has weights, but not in the form that was asked for."""

    code = "weights_left_out"
    title = "The export left these weights out"


class MalformedIdempotencyKeyError(CondenserError):
    """The Idempotency-Key header is not a key."""

    code = "malformed_idempotency_key"
    title = "Malformed idempotency key"


class UnsupportedMediaTypeError(CondenserError):
    """The request's body is not announced as JSON."""

    code = "unsupported_media_type"
    title = "The body must be JSON"
