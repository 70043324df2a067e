"""Addresses of our own pages, and which page a request comes from or asks for."""

from urllib.parse import urlencode, urlsplit

from fastapi import Request

SIGN_IN = "/ui/sign-in"
MAX_NEXT = 2_000


def local_path(wanted: str) -> str:
    """Give an address back if it is one of our pages, and the first page otherwise.

    It ends up in a Location header, and must not lead anywhere else.
    """
    is_ours = wanted.startswith(("/ui/", "/?")) and len(wanted) <= MAX_NEXT
    return wanted if is_ours and wanted.isprintable() and "\\" not in wanted else "/"


def sign_in_address(request: Request) -> str:
    """Where to sign in, to come back to the page that a request is about."""
    page = _page_of(request)
    return SIGN_IN if page == "/" else f"{SIGN_IN}?{urlencode({'next': page})}"


def _page_of(request: Request) -> str:
    """Path and query of the page that is open, where a part of it asks, or a form of it was sent."""
    if "hx-request" in request.headers:
        address = request.headers.get("hx-current-url", "")
    elif request.method == "GET":
        address = str(request.url)
    else:
        address = request.headers.get("referer", "")
    try:
        parts = urlsplit(address)
    except ValueError:
        return "/"
    return local_path(parts._replace(scheme="", netloc="", fragment="").geturl())
