"""The page of the tenant's API keys; its routes need a key with the scope ``admin``."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Response
from fastapi.responses import RedirectResponse
from pydantic import ValidationError

from api.keys import schemas, service
from api.pages.forms import Form, FormDependency
from api.pages.rendering import PageRoute, render
from api.pages.session import MAY_MANAGE_KEYS, REQUIRE_ADMIN, PageServices, Viewer, ViewerDependency
from api.tenant_services import TenantServices
from store.models import SCOPES
from store.scopes import missing_to_give

PAGE = 25
LIFETIMES = {"": "never", "7": "in 7 days", "30": "in 30 days", "90": "in 90 days", "365": "in a year"}
"""When a key that the form makes expires, by the days that the form sends."""

router = APIRouter(prefix="/ui/keys", route_class=PageRoute, include_in_schema=False)

After = Annotated[str, Query(max_length=100)]


@router.get("", dependencies=[REQUIRE_ADMIN])
def show_keys(services: PageServices, viewer: ViewerDependency, after: After = "") -> Response:
    """Show the keys of the tenant."""
    return _render(services, viewer, after=after)


@router.post("", dependencies=MAY_MANAGE_KEYS)
def create_key(services: PageServices, viewer: ViewerDependency, form: FormDependency) -> Response:
    """Make a key and show it, for the only time, or say what is wrong with the form."""
    days = form.get("days", [""])[-1]
    expires_at = datetime.now(UTC) + timedelta(days=int(days)) if days and days in LIFETIMES else None
    try:
        wanted = schemas.NewKey.model_validate(
            {
                "name": form.get("name", [""])[-1].strip(),
                "scopes": form.get("scopes", []),
                "expires_at": expires_at,
            }
        )
    except ValidationError as error:
        wrong = {str(each["loc"][0]) for each in error.errors()}
        return _render(services, viewer, form=form, wrong=wrong, status=422)
    return _render(services, viewer, created=service.create_key(services, wanted))


@router.post("/{key_id}/revoke", dependencies=MAY_MANAGE_KEYS)
def revoke_key(services: PageServices, key_id: Annotated[str, Path(max_length=64)]) -> Response:
    """Revoke a key and show the list again; whoever revokes their own key has to sign in with another."""
    service.revoke_key(services, key_id)
    return RedirectResponse("/ui/keys", status_code=303)


def _render(
    services: TenantServices,
    viewer: Viewer,
    *,
    after: str = "",
    form: Form | None = None,
    wrong: set[str] | None = None,
    created: schemas.CreatedKey | None = None,
    status: int = 200,
) -> Response:
    page = service.list_keys(services, after=after or None, limit=PAGE)
    context: dict[str, Any] = {
        "viewer": viewer,
        "keys": page.items,
        "next": page.next,
        "after": after,
        "now": datetime.now(UTC),
        "scopes": [scope for scope in SCOPES if not missing_to_give(viewer.caller.scopes, [scope])],
        "lifetimes": LIFETIMES,
        "form": form or {"scopes": ["read"]},
        "wrong": wrong or set(),
        "created": created,
    }
    return render("keys.html", context, status=status)
