"""The page that shows the students of one teacher side by side."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response

from api.comparisons import schemas, service
from api.jobs.endpoints import NO_NUL
from api.pages.job import GRID_LAYOUT, newest_grid
from api.pages.rendering import PageRoute, render
from api.pages.scatter import Point, Scatter
from api.pages.session import PageServices, ViewerDependency
from api.pages.sizes import known_teachers
from api.pages.wording import LOWER_IS_BETTER, SCORES, SPLITS
from api.tenant_services import TenantServices

SHOWN = 30
GRIDS = 8

router = APIRouter(prefix="/ui", route_class=PageRoute, include_in_schema=False)

Costs = tuple[str, str, Callable[[schemas.Measured], float | None]]
COSTS: tuple[Costs, ...] = (
    ("parameters", "Parameters (M)", lambda model: model.parameters and model.parameters / 1e6),
    ("computation", "GMACs a pass", lambda model: model.gmacs),
    ("time", "Seconds a picture", lambda model: model.seconds_per_picture),
)


@dataclass(frozen=True)
class GridRow:
    """Where a student's newest pictures are."""

    name: str
    job_id: str
    url: str


@router.get("/compare")
def show_comparison(
    services: PageServices,
    viewer: ViewerDependency,
    teacher: Annotated[str, Query(max_length=512, pattern=NO_NUL)] = "",
    split: Annotated[str, Query(max_length=40)] = "drawn",
    score: Annotated[str, Query(max_length=40)] = "frechet_distance",
) -> Response:
    """Plot, list and show the students of a teacher; without its name, those of the first one."""
    teachers = list(known_teachers(services.settings.teachers_dirs))
    teacher = teacher or next(iter(teachers), "")
    students = service.compare_students(services, teacher, limit=SHOWN).students if teacher else []
    splits = [name for name in SPLITS if any(name in each.student.scores for each in students)]
    split = split if split in splits else next(iter(splits), "drawn")
    measured = [
        name for name in SCORES if any(name in each.student.scores.get(split, {}) for each in students)
    ]
    score = score if score in measured else next(iter(measured), "frechet_distance")
    return render(
        "compare.html",
        {
            "viewer": viewer,
            "teacher": teacher,
            "teachers": sorted({*teachers, *([teacher] if teacher else [])}),
            "students": students,
            "split": split,
            "splits": splits,
            "score": score,
            "scores": measured,
            "lower_is_better": score in LOWER_IS_BETTER,
            "plots": [plot for cost in COSTS if (plot := _plot(cost, teacher, students, split, score))],
            "grids": _grids(services, students[:GRIDS]),
            "grid_layout": json.dumps(GRID_LAYOUT),
        },
    )


def _plot(
    cost: Costs, teacher: str, students: Sequence[schemas.ComparedStudent], split: str, score: str
) -> Scatter | None:
    """Plot a score against a cost; the teacher is the reference, as the newest job measured it.

    Jobs ran on different machines, or when these had more or less to do. But each timed its teacher beside
    its student, so that by the teacher's times all are brought to the speed of the newest job.
    """
    title, x_label, x_of = cost
    points: list[Point] = []

    def at_one_speed(student: schemas.ComparedStudent) -> schemas.Measured:
        there, here = student.teacher.seconds_per_picture, students[0].teacher.seconds_per_picture
        own = student.student.seconds_per_picture
        seconds = own * here / there if own and here and there else own
        return student.student.model_copy(update={"seconds_per_picture": seconds})

    def add(model: schemas.Measured, name: str, job_id: str, *, is_reference: bool = False) -> None:
        x, y = x_of(model), model.scores.get(split, {}).get(score)
        if x is not None and y is not None:
            points.append(Point(x, y, name, f"/ui/jobs/{job_id}", is_reference))

    for student in students:
        add(at_one_speed(student), student.name, student.job_id)
    if points:
        add(students[0].teacher, teacher, students[0].job_id, is_reference=True)
    return Scatter.of(f"{SCORES[score]} by {title}", x_label, SCORES[score], points)


def _grids(services: TenantServices, students: Sequence[schemas.ComparedStudent]) -> list[dict[str, Any]]:
    """Gather the newest grids of students that drew the same prompts, so that columns can be compared."""
    groups: dict[tuple[str, ...], list[GridRow]] = {}
    with services.transaction() as session:
        for student in students:
            grid = newest_grid(session, student.job_id)
            if grid is not None:
                row = GridRow(student.name, student.job_id, grid.url)
                groups.setdefault(tuple(grid.prompts), []).append(row)
    return [{"prompts": list(prompts), "rows": rows} for prompts, rows in groups.items()]
