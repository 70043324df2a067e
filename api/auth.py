"""Who sends a request, and whether they may: API keys as bearer tokens.

`api.app` puts every router behind one of the dependencies below; a route that is to work without a key has to
be left out there on purpose. A router needs no more than that::

    app.include_router(things.router, dependencies=[READ_OR_WRITE], responses=OF_CALLERS)

A handler that wants to know the caller takes a `CallerDependency`; one that touches a tenant's data takes
`api.tenant_services.TenantServicesDependency` and has it anyway.

The scripts of the pages cannot send a key: their visitors have sessions (`api.sessions`). So a GET without
an Authorization header may come with a session's cookie instead. No other request may, for a browser sends
cookies along with what a foreign page makes it send.
"""

from typing import Annotated

from fastapi import Depends, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.concurrency import run_in_threadpool

from api.openapi import problems
from api.rate_limits import Standing
from api.services import Services, ServicesDependency
from api.sessions import find_visitor, session_of
from store.api_keys import Caller
from store.errors import MissingScopeError, UnauthenticatedError
from store.key_format import PREFIX
from store.models import Scope
from store.scopes import allowed_by

OF_CALLERS = problems(401, 429, 503)
"""What every route that needs a key may answer because of it."""

_READING = frozenset({"GET", "HEAD", "OPTIONS"})
_bearer = HTTPBearer(
    scheme_name="ApiKey",
    bearerFormat=f"{PREFIX}…",
    description=f"An API key, which begins with `{PREFIX}`. `POST /keys` makes further ones; an operator "
    "makes the first with `python -m store.admin create-key`.",
    auto_error=False,
)


async def _caller(
    request: Request,
    services: ServicesDependency,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)],
) -> Caller:
    if credentials is not None:
        caller, standing = await run_in_threadpool(_admit, services, credentials.credentials)
    elif (token := _session(request, services)) is not None:
        caller, standing = await run_in_threadpool(_admit_visitor, services, token)
    else:
        raise UnauthenticatedError(
            "Send an API key: Authorization: Bearer condenser_… An operator makes the first one with "
            "`python -m store.admin create-key`."
        )
    request.scope["caller"] = caller  # for the log
    if standing is not None:
        request.scope["answer_headers"] = standing.headers()
    return caller


def _admit(services: Services, key: str) -> tuple[Caller, Standing | None]:
    caller = services.keys.remembered(key) or services.keys.find(key)
    return caller, services.rate_limits.count(caller.key_id)


def _session(request: Request, services: Services) -> str | None:
    may_have_one = request.method == "GET" and "authorization" not in request.headers
    return session_of(request, services) if may_have_one else None


def _admit_visitor(services: Services, token: str) -> tuple[Caller, Standing | None]:
    caller = find_visitor(services, token).caller
    return caller, services.rate_limits.count(caller.key_id)


CallerDependency = Annotated[Caller, Depends(_caller)]


def _require(caller: Caller, scope: Scope) -> None:
    if scope not in allowed_by(caller.scopes):
        raise MissingScopeError(f"This needs a key with the scope {scope}.", scope=scope)


async def _require_by_method(request: Request, caller: CallerDependency) -> None:
    _require(caller, "read" if request.method in _READING else "write")


async def _require_read(caller: CallerDependency) -> None:
    _require(caller, "read")


async def _require_admin(caller: CallerDependency) -> None:
    _require(caller, "admin")


READ_OR_WRITE = Depends(_require_by_method)
"""Lets in keys that may read; whatever is not a GET needs the scope ``write``."""

READ = Depends(_require_read)
"""Lets in keys that may read, for routes that change nothing though they are not GETs."""

ADMIN = Depends(_require_admin)
"""Lets in keys that may make and revoke keys."""
