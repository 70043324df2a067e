"""The first page: all jobs, and what they are at."""

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, get_args
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Query, Response

from api.jobs.endpoints import NO_NUL
from api.jobs.schemas import JobSummary
from api.pages.rendering import PageRoute, render
from api.pages.session import PageServices, ViewerDependency
from api.pages.sizes import Size, known_teachers, student_size
from api.tenant_services import TenantServices
from core.spec import TeacherInfo
from store.job_queries import list_jobs
from store.models import Job, Status

PAGE = 25

router = APIRouter(route_class=PageRoute, include_in_schema=False)

Text = Annotated[str, Query(max_length=512, pattern=NO_NUL)]


class Filters:
    """What a list is narrowed to, as the form of the page sends it: an empty field is no filter."""

    def __init__(
        self,
        status: Text = "",
        teacher: Text = "",
        search: Annotated[str, Query(max_length=200, pattern=NO_NUL)] = "",
        after: Annotated[str, Query(max_length=100)] = "",
    ) -> None:
        self.status: Status | None = next((known for known in get_args(Status) if known == status), None)
        self.teacher = teacher
        self.search = search.strip()
        self.after = after

    @property
    def are_set(self) -> bool:
        """Whether anything narrows the list."""
        return bool(self.status or self.teacher or self.search)

    def query(self, **changes: str | None) -> str:
        """Write the filters as a query, with some changed."""
        fields = {"status": self.status, "teacher": self.teacher, "search": self.search, "after": self.after}
        return urlencode({name: value for name, value in {**fields, **changes}.items() if value})


class Row:
    """A job in the list, with the sizes of its models."""

    def __init__(self, job: Job, teacher: TeacherInfo | None) -> None:
        self.job = JobSummary.of(job)
        self.teacher_parameters = teacher.parameters if teacher else None
        self.student_size: Size | None = student_size(teacher, job.student)


FiltersDependency = Annotated[Filters, Depends()]


@router.get("/")
def show_jobs(services: PageServices, viewer: ViewerDependency, filters: FiltersDependency) -> Response:
    """Show the list."""
    teachers = known_teachers(services.settings.teachers_dirs)
    context = _list(services, filters) | {
        "viewer": viewer,
        "statuses": get_args(Status),
        "teachers": sorted({*teachers, *([filters.teacher] if filters.teacher else [])}),
    }
    return render("jobs.html", context)


@router.get("/ui/fragments/jobs")
def refresh_jobs(
    services: PageServices,
    viewer: ViewerDependency,
    filters: FiltersDependency,
    seen: Annotated[str, Query(max_length=64)] = "",
) -> Response:
    """Give the list anew, or say that it is what the page shows already."""
    context = _list(services, filters) | {"viewer": viewer}
    if context["digest"] == seen:
        return Response(status_code=204)
    return render("fragments/jobs.html", context)


def _list(services: TenantServices, filters: Filters) -> dict[str, Any]:
    with services.transaction() as session:
        page = list_jobs(
            session,
            after=filters.after or None,
            limit=PAGE,
            status=filters.status,
            teacher=filters.teacher or None,
            search=filters.search or None,
        )
    teachers = known_teachers(services.settings.teachers_dirs)
    return {
        "filters": filters,
        "rows": [Row(job, teachers.get(job.teacher)) for job in page.items],
        "next": page.next,
        "digest": _digest(page.items),
    }


def _digest(jobs: Sequence[Job]) -> str:
    """Sum up what a page of the list shows.

    Everything about a job changes with its last event's number, but for the time that it waits for.
    """
    now = datetime.now(UTC)
    waiting = {job.id for job in jobs if job.not_before is not None and job.not_before > now}
    shown = " ".join(f"{job.id}:{job.last_sequence}:{job.id in waiting}" for job in jobs)
    return hashlib.sha256(shown.encode()).hexdigest()[:16]
