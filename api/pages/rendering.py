"""Turns templates into answers: HTML that runs no script and loads nothing but our own files."""

from collections.abc import Callable, Coroutine, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jinja2
from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, RedirectResponse
from fastapi.routing import APIRoute

from api.field_errors import explain_validation_error
from api.pages import wording
from api.pages.addresses import sign_in_address
from api.pages.assets import asset_path
from api.pages.spec_form import KIND_LABELS
from api.problems import status_of_error
from store.errors import CondenserError, UnauthenticatedError, UnavailableError

HEADERS = {
    "Content-Security-Policy": "; ".join(
        (
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "img-src 'self'",
            "connect-src 'self'",
            "form-action 'self'",
            "base-uri 'none'",
            "frame-ancestors 'none'",
        )
    ),
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}

_environment = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).with_name("templates")),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_environment.filters.update(wording.FILTERS)
_environment.globals.update(asset=asset_path, viewer=None, wording=wording, labels=KIND_LABELS)
_environment.tests["ahead"] = lambda moment: moment is not None and moment > datetime.now(UTC)
_environment.tests["in_part"] = lambda path, part: path == part or path.startswith(f"{part}.")
for _name in _environment.list_templates():
    _environment.get_template(_name)  # now: the first visitor of a page would wait for its compilation


def render(template: str, context: Mapping[str, Any], *, status: int = 200) -> HTMLResponse:
    """Render a template."""
    html = _environment.get_template(template).render(context)
    return HTMLResponse(html, status_code=status, headers=HEADERS)


def render_error(request: Request, *, status: int, title: str, detail: str) -> HTMLResponse:
    """Render the page that says why another page cannot be shown."""
    told = {"title": title, "detail": detail, "request_id": request.scope.get("request_id")}
    context = told | {"viewer": request.scope.get("viewer")}
    return render("error.html", {"status": status, **context}, status=status)


def _ask_to_sign_in(request: Request) -> Response:
    """Send a visitor to the sign-in; a part of a page that is refreshed takes the whole page there."""
    address = sign_in_address(request)
    if "hx-request" in request.headers:
        return Response(status_code=401, headers={"HX-Redirect": address})
    return RedirectResponse(address, status_code=303)


class PageRoute(APIRoute):
    """A route for people: what goes wrong is told on a page instead of in a problem document."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Wrap the handler."""
        handle = super().get_route_handler()

        async def handle_or_explain(request: Request) -> Response:
            try:
                return await handle(request)
            except RequestValidationError as error:
                detail = "; ".join(
                    f"{each.field}: {each.message}" for each in explain_validation_error(error)
                )
                return render_error(request, status=422, title="This address is not valid", detail=detail)
            except UnauthenticatedError:
                return _ask_to_sign_in(request)
            except CondenserError as error:
                status = status_of_error(error)
                if status is None:
                    raise
                detail = error.detail
                if isinstance(error, UnavailableError):
                    detail = "A server that this service depends on does not answer. Try again in a moment."
                return render_error(request, status=status, title=error.title, detail=detail)

        return handle_or_explain
