"""What the caption routes do beside uploading, as plain blocking functions for the thread pool."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from api.captions import schemas
from api.pagination import ListPage
from api.tenant_services import TenantServices
from core.spec import BundledCaptions, TeacherInfo
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


@dataclass(frozen=True)
class BundledSet:
    """A set of captions that comes with a teacher: its bytes, and its different captions."""

    name: str
    size: int
    count: int


def bundled_sets(teachers: Iterable[TeacherInfo]) -> list[BundledSet]:
    """Describe the sets that a job can name, of those teachers that bring one."""
    nameable = BundledCaptions.model_json_schema()["properties"]["name"]
    names = nameable.get("enum") or [nameable["const"]]
    return [
        BundledSet(teacher.id, teacher.caption_set.stat().st_size, count_captions(teacher.caption_set))
        for teacher in teachers
        if teacher.id in names and teacher.caption_set is not None
    ]


def count_captions(file: Path) -> int:
    """Count the different captions of a set that comes with a teacher, a caption a line."""
    with file.open(encoding="utf-8") as captions:
        return len({line.strip() for line in captions if line.strip()})
