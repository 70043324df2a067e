"""Errors of the API itself, beside those that the store raises."""

from store.errors import CondenserError, ConflictError, NotFoundError


class RateLimitedError(CondenserError):
    """More requests came with a key than may.

    Attributes
    ----------
    retry_after_seconds
        Pause after which one will be answered again.
    """

    code = "rate_limited"
    title = "Too many requests"

    def __init__(self, detail: str, *, retry_after_seconds: int) -> None:
        super().__init__(detail)
        self.retry_after_seconds = retry_after_seconds


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
    """The request's body is announced as something that the route does not take."""

    code = "unsupported_media_type"
    title = "The body is of the wrong type"


class TooManyUploadsError(CondenserError):
    """As many uploads are under way as this process takes at a time."""

    code = "too_many_uploads"
    title = "Too many uploads at once"


class ForeignFormError(CondenserError):
    """A form that none of our own pages is known to have sent."""

    code = "cross_site_request"
    title = "Cross-site requests are refused"


class SeveralLinesError(ConflictError):
    """The job has texts that the form of a submission cannot hold."""

    code = "several_lines"
    title = "This job does not fit into the form"
