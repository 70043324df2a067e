"""All routes of the pages; none of them is part of the public API."""

from fastapi import APIRouter, Response

from api.pages import assets, compare, job, job_list, new_job, teachers
from api.pages.rendering import PageRoute
from store.errors import NotFoundError

router = APIRouter(route_class=PageRoute, include_in_schema=False)
for part in (assets, job_list, new_job, compare, teachers, job):
    router.include_router(part.router)


@router.get("/ui/{rest:path}")
async def refuse_unknown(rest: str) -> Response:
    """Say on a page that there is no such page."""
    raise NotFoundError("There is no page at this address.")
