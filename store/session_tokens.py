"""What a signed-in browser carries in place of an API key: the key's id and an end, signed under the pepper.

A token opens nothing by itself: whoever reads one still has to look the key up, so that a key that was
revoked or has expired ends its sessions. Nothing of the key is in it, and nothing about it is stored.
"""

import hashlib
import hmac
from datetime import datetime

_PURPOSE = "condenser session "
"""No API key begins with it, so that no signature is also the digest of a key."""


COOKIE_PREFIX = "condenser_session"
_COOKIE_PURPOSE = "cookie"
_COOKIE_DIGITS = 12


def session_cookie(pepper: str) -> str:
    """Name the cookie that an installation's tokens come in.

    A browser has one jar of cookies for all ports of a host. Under names of their own, two installations on
    one machine, or behind one name, do not sign each other's visitors out.
    """
    return f"{COOKIE_PREFIX}_{_signature(_COOKIE_PURPOSE, pepper)[:_COOKIE_DIGITS]}"


def new_session_token(key_id: str, *, expires_at: datetime, pepper: str) -> str:
    """Make the token of a session.

    Parameters
    ----------
    key_id
        Of the key that its owner signed in with.
    expires_at
        The session's end, to the second.
    pepper
        The installation's secret.
    """
    signed = f"{key_id}.{int(expires_at.timestamp())}"
    return f"{signed}.{_signature(signed, pepper)}"


def read_session_token(token: str, *, pepper: str, now: datetime) -> str | None:
    """Give the key id of a token; None when it is not one of ours, or over.

    Nothing of a text is looked into before its signature has been found good, in a time that says nothing
    about where signatures differ.
    """
    signed, _, signature = token.rpartition(".")
    if not hmac.compare_digest(_signature(signed, pepper).encode(), signature.encode(errors="replace")):
        return None
    key_id, _, expires_at = signed.partition(".")
    return key_id if now.timestamp() < int(expires_at) else None


def _signature(signed: str, pepper: str) -> str:
    """HMAC-SHA256 in hexadecimal."""
    message = (_PURPOSE + signed).encode(errors="replace")
    return hmac.new(pepper.encode(), message, hashlib.sha256).hexdigest()
