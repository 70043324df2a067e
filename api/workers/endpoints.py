"""Routes of workers."""

from fastapi import APIRouter

from api.openapi import problems
from api.pagination import ListPage
from api.tenant_services import TenantServicesDependency
from api.workers import service
from api.workers.schemas import Worker

router = APIRouter(prefix="/workers", tags=["workers"])


@router.get("", summary="List workers", responses=problems())
def list_workers(services: TenantServicesDependency) -> ListPage[Worker]:
    """List the workers of this installation, and what each runs.

    A worker announces itself when it starts and with every heartbeat. One that ended in order is not listed;
    one that was killed is `silent`, for a day.
    """
    return ListPage(items=service.list_workers(services))
