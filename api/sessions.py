"""Sessions of the dashboard's visitors: a cookie in place of the key that they signed in with.

The cookie, whose name is this installation's alone, holds no key, and no session is stored: it is a signed
token (`store.session_tokens`) that names the key, and every request looks the key up, so that a session is
never good for more than its key is.
"""

from datetime import UTC, datetime, timedelta

from fastapi import Request, Response

from api.services import Services
from store.api_keys import Bearer
from store.errors import UnauthenticatedError
from store.session_tokens import new_session_token, read_session_token, session_cookie

LIFETIME = timedelta(hours=12)


def session_of(request: Request, services: Services) -> str | None:
    """Return the token that a request came with, unread."""
    return request.cookies.get(session_cookie(services.keys.pepper))


def find_visitor(services: Services, token: str) -> Bearer:
    """Name the visitor of a session; `UnauthenticatedError` when it is over, or its key good no more."""
    key_id = read_session_token(token, pepper=services.keys.pepper, now=datetime.now(UTC))
    if key_id is None:
        raise UnauthenticatedError("The session is over. Sign in again.")
    return services.keys.find_by_id(key_id)


def begin_session(request: Request, response: Response, services: Services, key_id: str) -> None:
    """Sign a visitor in, with the answer to their request."""
    expires_at = datetime.now(UTC) + LIFETIME
    response.set_cookie(
        session_cookie(services.keys.pepper),
        new_session_token(key_id, expires_at=expires_at, pepper=services.keys.pepper),
        max_age=int(LIFETIME.total_seconds()),
        secure=request.url.scheme == "https",
        httponly=True,
        samesite="lax",
    )


def end_session(response: Response, services: Services) -> None:
    """Have a visitor's browser forget its session."""
    response.delete_cookie(session_cookie(services.keys.pepper), httponly=True, samesite="lax")
