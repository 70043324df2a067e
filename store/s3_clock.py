"""Signatures that an object store accepts from a host whose clock is wrong.

S3 refuses a request whose signature is more than a quarter of an hour from its own time. The refusal carries
the server's time; from then on this process signs by it. All else that depends on the time goes by Postgres.
"""

from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

from botocore.auth import AUTH_TYPE_MAPS, SIGV4_TIMESTAMP, S3SigV4Auth
from botocore.exceptions import ClientError

SIGNATURE_VERSION = "s3v4"
_FORBIDDEN = 403
_NOTABLE = timedelta(minutes=5)


class _ServerTimeAuth(S3SigV4Auth):
    """Signature version 4, dated by the server's clock."""

    ahead = timedelta(0)

    def _modify_request_before_signing(self, request: Any) -> None:
        request.context["timestamp"] = (datetime.now(UTC) + self.ahead).strftime(SIGV4_TIMESTAMP)
        super()._modify_request_before_signing(request)  # type: ignore[misc]  # the stubs do not know it


def sign_by_server_time() -> None:
    """Let all S3 clients of this process sign by the server's clock once it is known to differ."""
    AUTH_TYPE_MAPS[SIGNATURE_VERSION] = _ServerTimeAuth


def dated_ahead() -> timedelta:
    """Return how far ahead of this host's clock requests are dated now."""
    return _ServerTimeAuth.ahead


def learn_server_time(error: BaseException | None) -> None:
    """Set the clock by a refusal, whatever its reason."""
    ahead = _server_ahead(error)
    if ahead is not None:
        _ServerTimeAuth.ahead = ahead


def refused_for_its_date(error: ClientError, ahead: timedelta) -> bool:
    """Whether a request may have been refused for its date.

    A refusal need not say so: that of a HEAD request has no body.

    Parameters
    ----------
    error
        How the request ended.
    ahead
        `dated_ahead` before it was sent; a refusal of another request may have set the clock since.
    """
    server_ahead = _server_ahead(error)
    return server_ahead is not None and abs(server_ahead - ahead) > _NOTABLE


def _server_ahead(error: BaseException | None) -> timedelta | None:
    """Return how far the server that refused a request is ahead of this host; None if none refused it."""
    if not isinstance(error, ClientError):
        return None
    answer = error.response["ResponseMetadata"]
    date = answer["HTTPHeaders"].get("date")
    if answer["HTTPStatusCode"] != _FORBIDDEN or not date:
        return None
    return parsedate_to_datetime(date) - datetime.now(UTC)
