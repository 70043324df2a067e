"""Routes of teachers."""

from fastapi import APIRouter

from api.openapi import problems
from api.pagination import ListPage
from api.services import ServicesDependency
from api.teachers.schemas import Teacher
from core.spec import list_teachers as registered_teachers

router = APIRouter(prefix="/teachers", tags=["teachers"])


@router.get("", summary="List teachers", responses=problems())
def list_teachers(services: ServicesDependency) -> ListPage[Teacher]:
    """List the teachers of this installation, with the student sizes that fit each."""
    teachers = registered_teachers(services.settings.teachers_dirs)
    return ListPage(items=[Teacher.of(teacher) for teacher in teachers])
