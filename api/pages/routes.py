"""All routes of the pages; none of them is part of the public API.

Only the sign-in and what it is drawn with are there for everybody.
"""

from fastapi import APIRouter, Response

from api.pages import (
    assets,
    captions,
    compare,
    job,
    job_list,
    keys,
    new_job,
    playground,
    sign_in,
    teachers,
    workers,
)
from api.pages.rendering import PageRoute
from api.pages.session import SIGNED_IN
from store.errors import NotFoundError

router = APIRouter(route_class=PageRoute, include_in_schema=False)
for part in (assets, sign_in):
    router.include_router(part.router)
for part in (job_list, new_job, compare, playground, teachers, captions, workers, keys, job):
    router.include_router(part.router, dependencies=[SIGNED_IN])
router.include_router(captions.uploads, dependencies=[SIGNED_IN])


@router.get("/ui/{rest:path}", dependencies=[SIGNED_IN])
async def refuse_unknown(rest: str) -> Response:
    """Say on a page that there is no such page."""
    raise NotFoundError("There is no page at this address.")
