"""Who looks at a page, and whether a form comes from one of our own pages.

This is the one place where an identity is plugged in: every page and every form depends on `Viewer`, and a
sign-in has to do no more than to make `current_viewer` read its cookie (HttpOnly, SameSite=Lax) and redirect
whoever has none. Without a sign-in every visitor is the same viewer, and whoever reaches the service may use
it, as over the public API.

A form changes something only if the browser says that our own page sent it. Browsers send ``Origin`` with
every POST and no page can forge it; that it names us is checked for every request (`api.host_guard`).
"""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from api.errors import ForeignFormError


@dataclass(frozen=True)
class Viewer:
    """Whoever looks at the pages.

    Attributes
    ----------
    name
        Shown at the top of every page; None where nobody needs to sign in.
    """

    name: str | None = None


async def current_viewer() -> Viewer:
    """Tell who sent the request."""
    return Viewer()


async def _require_own_form(request: Request) -> None:
    headers = request.headers
    if "origin" not in headers and headers.get("sec-fetch-site") != "same-origin":
        raise ForeignFormError("The browser did not say which page sent this form. Open the page again.")


ViewerDependency = Annotated[Viewer, Depends(current_viewer)]
RequireOwnForm = Depends(_require_own_form)
