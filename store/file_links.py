"""Links to stored files that lead to the API itself, for clients that cannot reach the object store.

A link names an object and an end, signed under the pepper, as a presigned link of the object store is signed
under its secret: whoever holds one may read that one object until then, and nothing about it is stored.
"""

import hashlib
import hmac
from datetime import datetime
from urllib.parse import quote, urlencode

FILES_PATH = "/files"
_PURPOSE = "condenser file "
"""No API key and no session begins with it, so that none of their signatures opens a file."""


def new_file_link(key: str, *, filename: str, expires_at: datetime, pepper: str) -> str:
    """Make a link below the API's address.

    Parameters
    ----------
    key
        The object.
    filename
        Name under which a browser saves it.
    expires_at
        The link's end, to the second.
    pepper
        The installation's secret.
    """
    expires = int(expires_at.timestamp())
    signature = _sign(key, filename, expires, pepper)
    query = {"key": key, "filename": filename, "expires": expires, "signature": signature}
    return f"{FILES_PATH}?{urlencode(query)}"


def is_good_file_link(
    key: str, *, filename: str, expires: int, signature: str, pepper: str, now: datetime
) -> bool:
    """Tell whether a link is one of ours, unchanged, and not over."""
    expected = _sign(key, filename, expires, pepper)
    is_ours = hmac.compare_digest(expected.encode(), signature.encode(errors="replace"))
    return is_ours and now.timestamp() < expires


def _sign(key: str, filename: str, expires: int, pepper: str) -> str:
    """HMAC-SHA256 in hexadecimal; no part can be shifted into another, for a line ends each."""
    message = f"{_PURPOSE}{expires}\n{quote(filename)}\n{quote(key)}"
    return hmac.new(pepper.encode(), message.encode(), hashlib.sha256).hexdigest()
