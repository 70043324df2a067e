"""What the job routes do, as plain blocking functions that run in the thread pool.

Each opens one short transaction, and none makes another network call inside it.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from api.errors import WeightsNotReadyError
from api.jobs import schemas
from api.jobs.requests import Submission, changed_submission
from api.jobs.validation import resolve_spec
from api.pagination import ListPage
from api.services import Services
from core.spec import DistillationSpec
from store import artifacts, events, jobs, metrics
from store.database import server_now, transaction
from store.errors import InvalidInputError
from store.idempotency import IdempotencyKey
from store.ids import new_job_id
from store.job_options import JobOptions
from store.models import TERMINAL_STATUSES, Artifact, ArtifactKind, Status

LINK_SECONDS = 3_600
FARTHEST_START = timedelta(days=366)


@dataclass(frozen=True)
class Accepted:
    """The answer to a submission, and whether an earlier request had made the job already."""

    job: schemas.Job
    is_replay: bool


@dataclass(frozen=True)
class EventBatch:
    """Events in order, and whether more are stored already or none will ever follow."""

    events: list[schemas.JobEvent]
    has_more: bool
    is_last: bool


def submit_job(services: Services, submission: Submission, idempotency_key: str | None) -> Accepted:
    """Check a specification and write the job, or find the job that the same request made before."""
    fingerprint = _fingerprint(submission.spec, submission.options)
    idempotency = IdempotencyKey(idempotency_key, fingerprint) if idempotency_key else None
    spec = resolve_spec(submission.spec, services.settings)
    job_id = new_job_id(datetime.now(UTC))
    with services.in_flight.hold(idempotency_key), transaction(services.engine) as session:
        now = server_now(session)
        job = jobs.create_job(
            session,
            spec=spec,
            options=_timely(submission.options, now),
            queue=services.settings.worker_queue,
            now=now,
            idempotency=idempotency,
            job_id=job_id,
        )
    return Accepted(job=schemas.Job.as_accepted(job), is_replay=job.id != job_id)


def _fingerprint(spec: DistillationSpec, options: JobOptions) -> str:
    """Tell requests apart; one without options as earlier releases did, whose records live on for a day."""
    text = spec.model_dump_json() + ("" if options == JobOptions() else options.model_dump_json())
    return hashlib.sha256(text.encode()).hexdigest()


def _timely(options: JobOptions, now: datetime) -> JobOptions:
    """Refuse a start too far away; one that lies in the past is none."""
    if options.not_before is None or options.not_before <= now:
        return options.model_copy(update={"not_before": None})
    if options.not_before - now > FARTHEST_START:
        raise InvalidInputError(
            f"The job would not start before {options.not_before:%Y-%m-%d}.",
            field="options.not_before",
            allowed=[f"until {now + FARTHEST_START:%Y-%m-%d}"],
        )
    return options


def clone_job(
    services: Services, job_id: str, changes: Mapping[str, Any], idempotency_key: str | None
) -> Accepted:
    """Submit a job's specification and options again, with some fields changed."""
    with transaction(services.engine) as session:
        job = jobs.get_job(session, job_id)
    options = JobOptions(priority=job.priority, max_runtime_s=job.max_runtime_s)
    return submit_job(services, changed_submission(job.spec, options, changes), idempotency_key)


def list_jobs(
    services: Services,
    *,
    after: str | None,
    limit: int,
    status: Status | None,
    teacher: str | None,
    search: str | None = None,
) -> ListPage[schemas.JobSummary]:
    """List jobs, the newest first."""
    with transaction(services.engine) as session:
        page = jobs.list_jobs(
            session, after=after, limit=limit, status=status, teacher=teacher, search=search
        )
    items = [schemas.JobSummary.of(job) for job in page.items]
    return ListPage(items=items, has_more=page.has_more, next=page.next)


def read_job(services: Services, job_id: str) -> schemas.Job:
    """Read one job."""
    with transaction(services.engine) as session:
        return schemas.Job.of(jobs.get_job(session, job_id))


def has_ended(job: schemas.Job) -> bool:
    """Tell whether nothing about the job will change any more."""
    return job.status in TERMINAL_STATUSES


def cancel_job(services: Services, job_id: str) -> schemas.Job:
    """Cancel a job, or ask its worker to stop."""
    with transaction(services.engine) as session:
        return schemas.Job.of(jobs.request_cancel(session, job_id=job_id, now=server_now(session)))


def pause_job(services: Services, job_id: str) -> schemas.Job:
    """Pause a job, or ask its worker to stop."""
    with transaction(services.engine) as session:
        return schemas.Job.of(jobs.request_pause(session, job_id=job_id, now=server_now(session)))


def resume_job(services: Services, job_id: str) -> schemas.Job:
    """Queue a paused job again."""
    with transaction(services.engine) as session:
        return schemas.Job.of(jobs.resume_job(session, job_id=job_id, now=server_now(session)))


def retry_job(services: Services, job_id: str, *, from_scratch: bool) -> schemas.Job:
    """Queue a failed or cancelled job again."""
    with transaction(services.engine) as session:
        now = server_now(session)
        return schemas.Job.of(jobs.retry_job(session, job_id=job_id, from_scratch=from_scratch, now=now))


def delete_job(services: Services, job_id: str) -> None:
    """Delete a job that does not run."""
    with transaction(services.engine) as session:
        jobs.delete_job(session, job_id=job_id, now=server_now(session))


def read_events(services: Services, job_id: str, *, after: int, limit: int) -> EventBatch:
    """Read the events of a job after a sequence number; `NotFoundError` once it was deleted."""
    with transaction(services.engine) as session:
        page = events.list_events(session, job_id, after=after, limit=limit)
        if not page.items:
            jobs.get_job(session, job_id)
    return EventBatch(
        events=[schemas.JobEvent.model_validate(event) for event in page.items],
        has_more=page.has_more,
        is_last=not page.has_more and bool(page.items) and events.ends_the_job(page.items[-1]),
    )


def read_metrics(
    services: Services, job_id: str, *, names: Sequence[str] | None, after_step: int, limit: int
) -> list[schemas.MetricSeries]:
    """Read a job's curves, each up to a number of points."""
    with transaction(services.engine) as session:
        job_id = jobs.get_job(session, job_id).id
        series = []
        for name in metrics.list_metric_names(session, job_id):
            if names is not None and name not in names:
                continue
            points = metrics.list_metric_points(
                session, job_id, names=[name], after_step=after_step, limit=limit + 1
            )
            series.append(
                schemas.MetricSeries(
                    name=name,
                    points=[
                        schemas.MetricPoint(step=point.step, value=point.value) for point in points[:limit]
                    ],
                    has_more=len(points) > limit,
                )
            )
    return series


def list_files(
    services: Services, job_id: str, *, kinds: Sequence[ArtifactKind] | None
) -> list[schemas.StoredFile]:
    """List a job's files of some kinds, each with a link."""
    with transaction(services.engine) as session:
        job_id = jobs.get_job(session, job_id).id
        rows = artifacts.list_artifacts(session, job_id, kinds=kinds)
    return [_stored_file(services, row) for row in rows]


def list_checkpoints(services: Services, job_id: str) -> list[schemas.Checkpoint]:
    """List a job's complete checkpoints, the one to resume from first."""
    with transaction(services.engine) as session:
        job_id = jobs.get_job(session, job_id).id
        checkpoints = artifacts.list_checkpoints(session, job_id)
    return [
        schemas.Checkpoint(
            attempt=checkpoint.attempt,
            step=checkpoint.step,
            files=[_stored_file(services, row) for row in checkpoint.files],
        )
        for checkpoint in checkpoints
    ]


def link_to_weights(services: Services, job_id: str) -> str:
    """Make a link to the archive of the student of a job that has succeeded."""
    with transaction(services.engine) as session:
        job = jobs.get_job(session, job_id)
        if job.status not in TERMINAL_STATUSES:
            raise WeightsNotReadyError(f"The job is {job.status}; its weights come when it has succeeded.")
        archive = artifacts.get_student_archive(session, job.id)
    name = f"{archive.job_id}-student.zip"
    return services.objects.presigned_get(archive.key, filename=name, expires_seconds=LINK_SECONDS)


def _stored_file(services: Services, row: Artifact) -> schemas.StoredFile:
    return schemas.StoredFile(
        kind=row.kind,
        attempt=row.attempt,
        step=row.step,
        path=row.path,
        size=row.size,
        sha256=row.sha256,
        created_at=row.created_at,
        url=services.objects.presigned_get(row.key, expires_seconds=LINK_SECONDS),
    )
