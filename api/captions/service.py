"""What the caption routes do beside uploading, as plain blocking functions for the thread pool."""

from api.captions import schemas
from api.pagination import ListPage
from api.tenant_services import TenantServices
from store import caption_files
from store.database import server_now


def list_files(services: TenantServices, *, after: str | None, limit: int) -> ListPage[schemas.CaptionFile]:
    """List the caption files of a tenant, the newest first."""
    with services.transaction() as session:
        page = caption_files.list_caption_files(
            session, tenant_id=services.caller.tenant_id, after=after, limit=limit
        )
    items = [schemas.CaptionFile.of(file) for file in page.items]
    return ListPage(items=items, has_more=page.has_more, next=page.next)


def read_file(services: TenantServices, file_id: str) -> schemas.CaptionFile:
    """Read one caption file's row."""
    with services.transaction() as session:
        return schemas.CaptionFile.of(
            caption_files.get_caption_file(session, file_id, tenant_id=services.caller.tenant_id)
        )


def delete_file(services: TenantServices, file_id: str) -> None:
    """Delete a caption file that no unfinished job reads."""
    with services.transaction() as session:
        now = server_now(session)
        caption_files.delete_caption_file(session, file_id, tenant_id=services.caller.tenant_id, now=now)
