"""What a job would take: counted from configs, and timed by what an earlier job of the same teacher took.

The API process has no accelerator to measure. A job that has run through in one attempt has: its operations
over its seconds, phase by phase, are the rate that its successor will run at on the same class of machine.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from starlette.concurrency import run_in_threadpool

from api.captions.service import count_captions
from api.estimates import schemas
from api.jobs.placing import place_job
from api.jobs.requests import Submission
from api.jobs.validation import resolve_in_thread
from api.teachers.service import find_registered
from api.tenant_services import TenantServices
from core.estimate import Estimate, estimate_job
from core.spec import (
    BadTeacherError,
    BundledCaptions,
    DistillationSpec,
    TeacherInfo,
    list_teachers,
)
from store.database import Session
from store.errors import InvalidInputError, NotFoundError
from store.job_queries import get_job, list_jobs
from store.models import Job
from store.phases import PhaseSpan, list_phases
from store.remote_inputs import is_remote

LOOKED_AT = 20
RATE_OF_PHASE = {
    # Latents may have been taken from the cache: drawing them is as fast as drawing for the evaluation.
    "latents": ("evaluation",),
    "training": ("training",),
    "few_step": ("few_step", "training"),
    "evaluation": ("evaluation",),
}
"""The phases whose rate is taken for a phase, the best one first."""


@dataclass(frozen=True)
class WholeRun:
    """A job that has run through in one attempt, and when its phases began and ended."""

    job: Job
    spans: list[PhaseSpan]


async def estimate(services: TenantServices, submission: Submission) -> schemas.Estimate:
    """Estimate a job; `InvalidInputError` where it would be refused, or its teacher is not on this server."""
    if is_remote(submission.spec.teacher):
        raise InvalidInputError(
            "There is no estimate of a job whose teacher is in an object store: what a job takes is counted "
            "from weight files on this server.",
            field="teacher",
        )
    spec = await resolve_in_thread(services, submission.spec)
    return await run_in_threadpool(_estimate_new_job, services, spec)


def estimate_submitted_job(services: TenantServices, job_id: str) -> schemas.JobEstimate:
    """Estimate a job from what was measured before it was submitted, and compare with what it took.

    Raises
    ------
    NotFoundError
        If there is no such job, or its teacher is not on this server, or is another one by now.
    """
    with services.transaction() as session:
        job = get_job(session, job_id)
        taken = _taken_seconds(list_phases(session, job.id))
        earlier = _latest_whole_run(session, job.teacher, job.queue, before=job)
    try:
        estimate = _estimate(services, DistillationSpec.model_validate(job.spec), earlier)
    except BadTeacherError as error:
        raise NotFoundError(
            f"There is no estimate of this job from this server's teachers: {error}."
        ) from error
    seconds = estimate.seconds or {}
    if job.status != "succeeded" or not seconds or not all(taken.get(phase) for phase in seconds):
        return schemas.JobEstimate(**estimate.model_dump(), taken_seconds=taken)
    total = sum(taken[phase] for phase in seconds)
    return schemas.JobEstimate(
        **estimate.model_dump(),
        taken_seconds=taken,
        total_taken_seconds=total,
        error={phase: expected / taken[phase] - 1 for phase, expected in seconds.items()},
        total_error=sum(seconds.values()) / total - 1,
    )


def _estimate_new_job(services: TenantServices, spec: DistillationSpec) -> schemas.Estimate:
    queue = place_job(spec, services.settings).queue
    with services.transaction() as session:
        earlier = _latest_whole_run(session, spec.teacher, queue)
    return _estimate(services, spec, earlier)


def _estimate(
    services: TenantServices, spec: DistillationSpec, measured: WholeRun | None
) -> schemas.Estimate:
    settings = services.settings
    teacher = find_registered(spec.teacher, settings.teachers_dirs)
    teachers = {known.id: known for known in list_teachers(settings.teachers_dirs)}
    counted = estimate_job(teacher, spec, caption_count=_caption_count(spec, teachers))
    seconds = None
    if measured is not None:
        earlier = DistillationSpec.model_validate(measured.job.spec)
        operations = estimate_job(teacher, earlier, caption_count=_caption_count(earlier, teachers)).flops
        seconds = _seconds(counted, _rates(operations, measured.spans))
    return schemas.Estimate(
        teacher=teacher.id,
        **counted.model_dump(exclude={"seconds"}),
        seconds=seconds,
        total_seconds=sum(seconds.values()) if seconds else None,
        measured_on=_measurement(measured.job) if measured is not None and seconds else None,
    )


def _caption_count(spec: DistillationSpec, teachers: Mapping[str, TeacherInfo]) -> int | None:
    """Count the captions of a bundled set; those of a request are counted with the estimate."""
    if not isinstance(spec.captions, BundledCaptions):
        return None
    teacher = teachers.get(spec.captions.name)
    if teacher is None or teacher.caption_set is None:
        return None
    return count_captions(teacher.caption_set)


def _latest_whole_run(
    session: Session, teacher: str, queue: str, *, before: Job | None = None
) -> WholeRun | None:
    """Find the newest job of a teacher that succeeded at its first attempt from the same queue.

    With ``before``, the newest of those that had ended when that job was submitted.
    """
    after = before.id if before else None
    page = list_jobs(session, after=after, teacher=teacher, status="succeeded", limit=LOOKED_AT)
    for job in page.items:
        had_ended = before is None or (job.finished_at is not None and job.finished_at <= before.created_at)
        if job.attempt == 1 and job.queue == queue and had_ended:
            return WholeRun(get_job(session, job.id), list_phases(session, job.id))
    return None


def _taken_seconds(spans: Iterable[PhaseSpan]) -> dict[str, float]:
    """Time of each phase that has ended, all attempts together."""
    taken: dict[str, float] = {}
    for span in spans:
        if span.seconds is not None:
            taken[span.phase] = taken.get(span.phase, 0.0) + span.seconds
    return taken


def _rates(operations: Mapping[str, float], spans: Iterable[PhaseSpan]) -> dict[str, float]:
    """Operations a second of each phase of a job that has run."""
    return {
        span.phase: operations[span.phase] / span.seconds
        for span in spans
        if span.seconds and operations.get(span.phase)
    }


def _seconds(counted: Estimate, rates: Mapping[str, float]) -> dict[str, float] | None:
    """Time of every phase; None where the rate of one is not known."""
    seconds = {}
    for phase, operations in counted.flops.items():
        rate = next((rates[other] for other in RATE_OF_PHASE[phase] if other in rates), None)
        if rate is None:
            return None
        seconds[phase] = operations / rate
    return seconds


def _measurement(job: Job) -> schemas.Measurement | None:
    if job.finished_at is None:
        return None
    return schemas.Measurement(job_id=job.id, queue=job.queue, finished_at=job.finished_at)
