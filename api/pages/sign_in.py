"""Signing in with an API key, and out again.

Where `Settings.dashboard_key_file` names a file with a key, whoever comes from this very machine is signed in
with it unasked. Only the sign-in knows of that: everything else goes by the session that it begins.
"""

import ipaddress
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import RedirectResponse

from api.host_guard import LOOPBACK_HOSTS, host_name
from api.pages.addresses import SIGN_IN, local_path
from api.pages.forms import FormDependency
from api.pages.rendering import PageRoute, render
from api.pages.session import REQUIRE_OWN_FORM, may
from api.services import Services, ServicesDependency
from api.sessions import begin_session, end_session, find_visitor, session_of
from store.api_keys import Caller
from store.errors import UnauthenticatedError

KEY_FIELD, NEXT_FIELD = "key", "next"
PROXY_HEADERS = ("forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-real-ip")
MAY_NOT_READ = "This key is good, but may not look at anything: it lacks the scope read."

router = APIRouter(route_class=PageRoute, include_in_schema=False)

Next = Annotated[str, Query(alias=NEXT_FIELD)]


@router.get(SIGN_IN)
def show_sign_in(
    request: Request, services: ServicesDependency, wanted: Next = "/", signed_out: bool = False
) -> Response:
    """Ask for a key, unless the visitor is signed in already, or is the owner of this machine."""
    token = session_of(request, services)
    if token is not None and _is_good(services, token):
        return RedirectResponse(local_path(wanted), status_code=303)
    owner = None if signed_out else _owner(request, services)
    if owner is not None:
        return _signed_in(request, services, owner, wanted)
    notice = "The session is over: sign in again." if token is not None else None
    notice = "You have signed out." if signed_out else notice
    response = _render(wanted, notice=notice)
    end_session(response, services)
    return response


@router.post(SIGN_IN, dependencies=[REQUIRE_OWN_FORM])
def sign_in(request: Request, services: ServicesDependency, form: FormDependency) -> Response:
    """Check the key and begin a session, or say what is wrong with it."""
    key, wanted = form.get(KEY_FIELD, [""])[-1].strip(), form.get(NEXT_FIELD, ["/"])[-1]
    try:
        caller = services.keys.find(key)
    except UnauthenticatedError as error:
        return _render(wanted, error=error.detail if key else "Paste a key.", status=422)
    if not may(caller, "read"):
        return _render(wanted, error=MAY_NOT_READ, status=422)
    return _signed_in(request, services, caller, wanted)


@router.post("/ui/sign-out", dependencies=[REQUIRE_OWN_FORM])
def sign_out(services: ServicesDependency) -> Response:
    """End the session of this browser."""
    response = RedirectResponse(f"{SIGN_IN}?signed_out=true", status_code=303)
    end_session(response, services)
    return response


def _is_good(services: Services, token: str) -> bool:
    try:
        return may(find_visitor(services, token).caller, "read")
    except UnauthenticatedError:
        return False


def _signed_in(request: Request, services: Services, caller: Caller, wanted: str) -> Response:
    response = RedirectResponse(local_path(wanted), status_code=303)
    begin_session(request, response, services, caller.key_id)
    return response


def _owner(request: Request, services: Services) -> Caller | None:
    """Find whom the key in the file stands for, if a browser on this very machine asks, and no proxy."""
    file = services.settings.dashboard_key_file
    if file is None or not _is_from_this_machine(request):
        return None
    try:
        caller = services.keys.find(_read(file))
    except UnauthenticatedError:
        return None
    return caller if may(caller, "read") else None


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace").strip()
    except (FileNotFoundError, PermissionError):
        return ""


def _is_from_this_machine(request: Request) -> bool:
    if request.client is None or any(name in request.headers for name in PROXY_HEADERS):
        return False
    try:
        is_local = ipaddress.ip_address(request.client.host).is_loopback
    except ValueError:
        return False
    host = request.headers.get("host", "")
    origin = request.headers.get("origin")
    is_own = origin is None or origin.partition("://")[2].lower() == host.lower()
    return is_local and is_own and host_name(host) in LOOPBACK_HOSTS


def _render(
    wanted: str, *, notice: str | None = None, error: str | None = None, status: int = 200
) -> Response:
    context = {"next": local_path(wanted), "notice": notice, "error": error}
    return render("sign_in.html", context, status=status)
