"""The page of the teachers, each with the sizes of its students."""

from fastapi import APIRouter, Response

from api.pages.rendering import PageRoute, render
from api.pages.session import PageServices, ViewerDependency
from api.pages.sizes import known_teachers, preset_sizes, teacher_size

router = APIRouter(prefix="/ui", route_class=PageRoute, include_in_schema=False)


@router.get("/teachers")
def show_teachers(services: PageServices, viewer: ViewerDependency) -> Response:
    """Show what can be distilled, and into what."""
    teachers = [
        {"info": teacher, "size": teacher_size(teacher), "students": preset_sizes(teacher)}
        for teacher in known_teachers(services.settings.teachers_dirs).values()
    ]

    return render("teachers.html", {"viewer": viewer, "teachers": teachers})
