"""What became of one teacher's students: the results of its jobs, in one shape."""

from api.comparisons import schemas
from api.tenant_services import TenantServices
from core.spec import DistillationSpec, list_teachers, student_name
from store.errors import InvalidInputError
from store.job_queries import list_jobs, read_settings
from store.models import Job


def compare_students(
    services: TenantServices, teacher: str, *, after: str | None = None, limit: int = 100
) -> schemas.Comparison:
    """Compare a teacher's students; `InvalidInputError` where neither teacher nor students are known."""
    with services.transaction() as session:
        page = list_jobs(session, teacher=teacher, status="succeeded", after=after, limit=limit)
        settings = read_settings(session, [job.id for job in page.items])
    if not page.items and after is None:
        known = [info.id for info in list_teachers(services.settings.teachers_dirs)]
        if teacher not in known:
            raise InvalidInputError("There is no teacher of that id.", field="teacher", allowed=known)
    students = [_student(job, DistillationSpec.model_validate(settings[job.id])) for job in page.items]
    return schemas.Comparison(teacher=teacher, students=students, has_more=page.has_more, next=page.next)


def _student(job: Job, spec: DistillationSpec) -> schemas.ComparedStudent:
    result = job.result or {}
    measured = [result[split]["pictures"] for split in schemas.SPLITS if result.get(split)]
    return schemas.ComparedStudent(
        job_id=job.id,
        name=(result.get("student") or {}).get("name") or student_name(spec.student),
        finished_at=job.finished_at,
        training_steps=spec.training.steps,
        batch_size=spec.training.batch_size,
        sampler_steps=spec.student_drawing.steps,
        pictures=measured[0] if measured else None,
        student=schemas.Measured.of(result, "student"),
        teacher=schemas.Measured.of(result, "teacher"),
    )
