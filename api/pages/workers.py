"""The page of the workers: what there is to train on, and what it does."""

from typing import Any

from fastapi import APIRouter, Response

from api.pages.rendering import PageRoute, render
from api.pages.session import PageServices, ViewerDependency
from api.tenant_services import TenantServices
from api.workers import service

router = APIRouter(prefix="/ui", route_class=PageRoute, include_in_schema=False)


@router.get("/workers")
def show_workers(services: PageServices, viewer: ViewerDependency) -> Response:
    """Show the workers."""
    return render("workers.html", _list(services) | {"viewer": viewer})


@router.get("/fragments/workers")
def refresh_workers(services: PageServices, viewer: ViewerDependency) -> Response:
    """Give the list of the workers anew."""
    return render("fragments/workers.html", _list(services) | {"viewer": viewer})


def _list(services: TenantServices) -> dict[str, Any]:
    workers = service.list_workers(services)
    states = [worker.state for worker in workers]
    return {
        "workers": workers,
        "counts": {state: states.count(state) for state in ("busy", "idle", "silent") if state in states},
        "lease_seconds": services.settings.lease_seconds,
    }
