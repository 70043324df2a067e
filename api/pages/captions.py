"""The page of the captions: the sets that come with teachers, and the files that were uploaded."""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.responses import RedirectResponse

from api.captions import endpoints, service
from api.captions.schemas import CaptionFile
from api.pages.rendering import PageRoute, render
from api.pages.session import MAY_CHANGE, PageServices, Viewer, ViewerDependency
from api.pages.sizes import known_teachers
from api.tenant_services import TenantServices
from core.caption_formats import COMPRESSIONS, SUFFIXES
from store.caption_files import captions_read
from store.errors import ConflictError

PAGE = 25
UPLOAD_PATH = "/ui/captions"

router = APIRouter(prefix=UPLOAD_PATH, route_class=PageRoute, include_in_schema=False)
uploads = APIRouter(include_in_schema=False)
"""What the page's script sends files to: it wants a problem as a document, not as a page."""

FileId = Annotated[str, Path(max_length=64)]


@router.get("")
def show_captions(
    services: PageServices, viewer: ViewerDependency, after: Annotated[str, Query(max_length=100)] = ""
) -> Response:
    """Show what captions there are."""
    return _render(services, viewer, after=after)


@uploads.post(UPLOAD_PATH, dependencies=MAY_CHANGE)
async def upload_captions(
    services: PageServices, request: Request, response: Response, name: endpoints.Name
) -> CaptionFile:
    """Store the request's body as a file of captions, as `POST /captions` does."""
    return await endpoints.upload_captions(services, request, response, name)


@router.post("/{file_id}/delete", dependencies=MAY_CHANGE)
def delete_captions(services: PageServices, viewer: ViewerDependency, file_id: FileId) -> Response:
    """Delete a file and show the list again, or say which job reads it."""
    try:
        service.delete_file(services, file_id)
    except ConflictError as error:
        return _render(services, viewer, notice=error.detail, status=409)
    return RedirectResponse(UPLOAD_PATH, status_code=303)


def _render(
    services: TenantServices, viewer: Viewer, *, after: str = "", notice: str | None = None, status: int = 200
) -> Response:
    page = service.list_files(services, after=after or None, limit=PAGE)
    with services.transaction() as session:
        counts = captions_read(session, [file.id for file in page.items])
    context: dict[str, Any] = {
        "viewer": viewer,
        "files": page.items,
        "counts": counts,
        "next": page.next,
        "after": after,
        "bundled": service.bundled_sets(known_teachers(services.settings.teachers_dirs).values()),
        "endings": [suffix + packed for suffix in SUFFIXES for packed in ("", *COMPRESSIONS)],
        "formats": list(SUFFIXES),
        "compressions": list(COMPRESSIONS),
        "max_bytes": services.settings.max_caption_file_bytes,
        "notice": notice,
    }
    return render("captions.html", context, status=status)
