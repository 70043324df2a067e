"""Routes of comparisons."""

from typing import Annotated

from fastapi import APIRouter, Query

from api.comparisons import schemas, service
from api.jobs.endpoints import NO_NUL
from api.openapi import problems
from api.pagination import Limit
from api.tenant_services import TenantServicesDependency

router = APIRouter(tags=["comparisons"])


@router.get("/compare", summary="Compare students", responses=problems(422, 503))
def compare_students(
    services: TenantServicesDependency,
    teacher: Annotated[str, Query(min_length=1, max_length=512, pattern=NO_NUL, examples=["emoji-64"])],
    after: Annotated[
        str | None, Query(max_length=100, description="Cursor: the `next` of the page before.")
    ] = None,
    limit: Limit = 100,
) -> schemas.Comparison:
    """Compare the students of one teacher: what each costs and how well it draws, the newest first.

    Beside each student stands the teacher as the same job measured it, since times depend on the machine and
    scores on the captions.
    """
    return service.compare_students(services, teacher, after=after, limit=limit)
