"""Who looks at a page, what they may do, and whether a form comes from one of our own pages.

`api.pages.routes` puts every page but the sign-in behind `SIGNED_IN`. A handler that touches a tenant's
data takes `PageServices`, whose transactions see the visitor's tenant alone; a route that changes something
takes `MAY_CHANGE`.

A form changes something only if the browser says that our own page sent it. Browsers send ``Origin`` with
every POST and no page can forge it; `api.host_guard` refuses foreign ones, but for those that may use the
API, which are refused here.
"""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request
from starlette.concurrency import run_in_threadpool

from api.errors import ForeignFormError
from api.services import Services, ServicesDependency
from api.sessions import find_visitor, session_of
from api.tenant_services import TenantServices
from store.api_keys import Bearer, Caller
from store.errors import MissingScopeError, UnauthenticatedError
from store.models import Scope
from store.scopes import allowed_by


@dataclass(frozen=True)
class Viewer:
    """Whoever looks at the pages.

    Attributes
    ----------
    key_name, tenant_name
        Shown at the top of every page.
    can_change
        Whether the key allows more than to look.
    can_manage_keys
        Whether the key allows to make and revoke keys.
    """

    caller: Caller
    key_name: str
    tenant_name: str
    can_change: bool
    can_manage_keys: bool

    @classmethod
    def of(cls, bearer: Bearer) -> "Viewer":
        """Take a key's bearer for the viewer."""
        caller = bearer.caller
        return cls(caller, bearer.key_name, bearer.tenant_name, may(caller, "write"), may(caller, "admin"))


def may(caller: Caller, scope: Scope) -> bool:
    """Tell whether a caller's key allows what a scope allows."""
    return scope in allowed_by(caller.scopes)


async def current_viewer(request: Request, services: ServicesDependency) -> Viewer:
    """Tell who sent the request by the session's cookie; `UnauthenticatedError` without a good one."""
    token = session_of(request, services)
    if token is None:
        raise UnauthenticatedError("Sign in to see this page.")
    viewer = await run_in_threadpool(_admit, services, token)
    request.scope["caller"] = viewer.caller  # for the log
    request.scope["viewer"] = viewer  # for the page that says what went wrong
    return viewer


def _admit(services: Services, token: str) -> Viewer:
    bearer = find_visitor(services, token)
    services.rate_limits.count(bearer.caller.key_id)
    return Viewer.of(bearer)


ViewerDependency = Annotated[Viewer, Depends(current_viewer)]


async def _page_services(
    request: Request, services: ServicesDependency, viewer: ViewerDependency
) -> TenantServices:
    return TenantServices(services, viewer.caller, address=str(request.base_url))


PageServices = Annotated[TenantServices, Depends(_page_services)]


async def _require_read(viewer: ViewerDependency) -> None:
    if not may(viewer.caller, "read"):
        raise MissingScopeError("This needs a key with the scope read.", scope="read")


async def _require_own_form(request: Request, services: ServicesDependency) -> None:
    headers = request.headers
    origin = headers.get("origin")
    if origin is None:
        is_own = headers.get("sec-fetch-site") == "same-origin"
    else:
        host = headers.get("host", "").lower()
        is_own = origin not in services.settings.cors_origins or origin.partition("://")[2].lower() == host
    if not is_own:
        raise ForeignFormError(
            "The browser did not say that our own page sent this form. Open the page again."
        )


async def _require_write(viewer: ViewerDependency) -> None:
    if not viewer.can_change:
        raise MissingScopeError("This needs a key with the scope write; yours may only look.", scope="write")


async def _require_admin(viewer: ViewerDependency) -> None:
    if not viewer.can_manage_keys:
        raise MissingScopeError(
            "This needs a key with the scope admin; yours may not manage keys.", scope="admin"
        )


SIGNED_IN = Depends(_require_read)
REQUIRE_OWN_FORM = Depends(_require_own_form)
MAY_CHANGE = [REQUIRE_OWN_FORM, Depends(_require_write)]
REQUIRE_ADMIN = Depends(_require_admin)
MAY_MANAGE_KEYS = [REQUIRE_OWN_FORM, REQUIRE_ADMIN]
