"""What the job routes do, as plain blocking functions that run in the thread pool.

Each opens one short transaction, and none makes another network call inside it. What checks a specification
is a coroutine: for that the object store may have to be asked, in threads meant for it.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from http import HTTPStatus
from typing import Any, Literal

from starlette.concurrency import run_in_threadpool

from api.errors import WeightsLeftOutError, WeightsNotReadyError
from api.idempotency import Carried, carried_before, carry_out_once, key_of
from api.jobs import schemas
from api.jobs.placing import place_job
from api.jobs.requests import Submission, changed_submission
from api.jobs.validation import resolve_in_thread
from api.pagination import ListPage
from api.tenant_services import TenantServices
from core.spec import DistillationSpec, UploadedCaptions
from store import artifacts, caption_files, events, job_queries, jobs, metrics, step_wishes
from store.database import Session, server_now
from store.errors import InvalidInputError, NotFoundError
from store.idempotency import IdempotencyKey, KeptAnswer
from store.job_options import JobOptions
from store.models import TERMINAL_STATUSES, Artifact, ArtifactKind, Status
from store.quotas import Quotas
from store.step_wishes import StepWish

FARTHEST_START = timedelta(days=366)
POINTS_AT_ONCE = 10_000

WeightsForm = Literal["archive", "unet", "single-file"]
WEIGHTS_PATHS: Mapping[WeightsForm, str] = {
    "unet": "student/unet/diffusion_pytorch_model.safetensors",
    "single-file": "student/unet.fp16.safetensors",
}
WEIGHTS_SUFFIXES: Mapping[WeightsForm, str] = {
    "archive": ".zip",
    "unet": "-unet.safetensors",
    "single-file": ".safetensors",
}


@dataclass(frozen=True)
class EventBatch:
    """Events in order, and whether more are stored already or none will ever follow."""

    events: list[schemas.JobEvent]
    has_more: bool
    is_last: bool


async def submit_job(
    services: TenantServices, submission: Submission, idempotency_key: str | None
) -> Carried:
    """Check a specification and write the job, or find the answer that the same request got before."""
    key = key_of(idempotency_key, _text_of(submission.spec, submission.options))
    if (before := await run_in_threadpool(carried_before, services, key)) is not None:
        return before
    spec = await resolve_in_thread(services, submission.spec)
    return await run_in_threadpool(_write_job, services, spec, submission.options, key)


def _write_job(
    services: TenantServices, spec: DistillationSpec, options: JobOptions, key: IdempotencyKey | None
) -> Carried:
    place = place_job(spec, services.settings)

    def write(session: Session, now: datetime) -> tuple[KeptAnswer, str]:
        _hold_captions(session, spec, services.caller.tenant_id)
        job = jobs.create_job(
            session,
            spec=spec,
            options=_timely(options, now),
            queue=place.queue,
            memory_bytes=place.memory_bytes,
            now=now,
            idempotency=key,
            quotas=Quotas.by_default(services.settings),
        )
        return _answer(schemas.Job.as_accepted(job), status_code=201), job.id

    return carry_out_once(services, key, write)


def _hold_captions(session: Session, spec: DistillationSpec, tenant_id: str) -> None:
    """Refuse captions that were never uploaded; those that were stay until the job has ended."""
    if isinstance(spec.captions, UploadedCaptions):
        try:
            caption_files.hold_caption_file(session, spec.captions.id, tenant_id=tenant_id)
        except NotFoundError as error:
            raise InvalidInputError(
                "There is no caption file of that id; POST /captions makes one.", field="captions.id"
            ) from error


def _answer(job: schemas.Job, *, status_code: int) -> KeptAnswer:
    location = job.links["self"] if status_code == HTTPStatus.CREATED else None
    return KeptAnswer(status_code, job.model_dump_json(), location)


def _text_of(spec: DistillationSpec, options: JobOptions) -> str:
    """Tell requests apart; one without options as earlier releases did, whose records live on for a day."""
    return spec.model_dump_json() + ("" if options == JobOptions() else options.model_dump_json())


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


async def clone_job(
    services: TenantServices, job_id: str, changes: Mapping[str, Any], idempotency_key: str | None
) -> Carried:
    """Submit a job's specification and options again, with some fields changed."""
    key = key_of(idempotency_key, "clone", job_id, json.dumps(changes, sort_keys=True))
    if (before := await run_in_threadpool(carried_before, services, key)) is not None:
        return before
    job = await run_in_threadpool(read_job, services, job_id)
    options = JobOptions(priority=job.priority, max_runtime_s=job.max_runtime_s)
    submission = changed_submission(job.spec, options, changes)
    spec = await resolve_in_thread(services, submission.spec)
    return await run_in_threadpool(_write_job, services, spec, submission.options, key)


def list_jobs(
    services: TenantServices,
    *,
    after: str | None,
    limit: int,
    status: Status | None,
    teacher: str | None,
    search: str | None = None,
) -> ListPage[schemas.JobSummary]:
    """List jobs, the newest first."""
    with services.transaction() as session:
        page = job_queries.list_jobs(
            session, after=after, limit=limit, status=status, teacher=teacher, search=search
        )
    items = [schemas.JobSummary.of(job) for job in page.items]
    return ListPage(items=items, has_more=page.has_more, next=page.next)


def read_job(services: TenantServices, job_id: str) -> schemas.Job:
    """Read one job."""
    with services.transaction() as session:
        return schemas.Job.of(job_queries.get_job(session, job_id))


def has_ended(job: schemas.Job) -> bool:
    """Tell whether nothing about the job will change any more."""
    return job.status in TERMINAL_STATUSES


def cancel_job(services: TenantServices, job_id: str) -> schemas.Job:
    """Cancel a job, or ask its worker to stop."""
    with services.transaction() as session:
        return schemas.Job.of(jobs.request_cancel(session, job_id=job_id, now=server_now(session)))


def pause_job(services: TenantServices, job_id: str) -> schemas.Job:
    """Pause a job, or ask its worker to stop."""
    with services.transaction() as session:
        return schemas.Job.of(jobs.request_pause(session, job_id=job_id, now=server_now(session)))


def resume_job(services: TenantServices, job_id: str) -> schemas.Job:
    """Queue a paused job again."""
    with services.transaction() as session:
        quotas = Quotas.by_default(services.settings)
        job = jobs.resume_job(session, job_id=job_id, now=server_now(session), quotas=quotas)
        return schemas.Job.of(job)


def request_at_step(services: TenantServices, job_id: str, wish: StepWish) -> schemas.Job:
    """Ask a running training for a checkpoint or for pictures."""
    with services.transaction() as session:
        now = server_now(session)
        return schemas.Job.of(step_wishes.request_at_step(session, job_id=job_id, wish=wish, now=now))


def retry_job(
    services: TenantServices, job_id: str, *, from_scratch: bool, idempotency_key: str | None
) -> Carried:
    """Queue a failed or cancelled job again."""

    def retry(session: Session, now: datetime) -> tuple[KeptAnswer, str]:
        quotas = Quotas.by_default(services.settings)
        caption_files.hold_captions_of(session, job_queries.get_job(session, job_id))
        job = jobs.retry_job(session, job_id=job_id, from_scratch=from_scratch, now=now, quotas=quotas)
        return _answer(schemas.Job.of(job), status_code=200), job.id

    key = key_of(idempotency_key, "retry", job_id, str(from_scratch))
    return carry_out_once(services, key, retry)


def delete_job(services: TenantServices, job_id: str) -> None:
    """Delete a job that does not run."""
    with services.transaction() as session:
        jobs.delete_job(session, job_id=job_id, now=server_now(session))


def read_events(services: TenantServices, job_id: str, *, after: int, limit: int) -> EventBatch:
    """Read the events of a job after a sequence number; `NotFoundError` once it was deleted."""
    with services.transaction() as session:
        page = events.list_events(session, job_id, after=after, limit=limit)
        if not page.items:
            job_queries.find_job(session, job_id)
    return EventBatch(
        events=[schemas.JobEvent.model_validate(event) for event in page.items],
        has_more=page.has_more,
        is_last=not page.has_more and bool(page.items) and events.ends_the_job(page.items[-1]),
    )


def read_metrics(
    services: TenantServices, job_id: str, *, names: Sequence[str] | None, after_step: int, limit: int
) -> list[schemas.MetricSeries]:
    """Read a job's curves, each up to a number of points."""
    with services.transaction() as session:
        job_id = job_queries.find_job(session, job_id)
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


def write_metrics(
    services: TenantServices, job_id: str, *, names: Sequence[str] | None, after_step: int, limit: int | None
) -> Iterator[str]:
    """Write a job's curves as a table, whole or each up to a number of points.

    Returns
    -------
    iterator of str
        Parts of the table, each read in a transaction of its own. It breaks off with an error when the job is
        deleted meanwhile, so that nobody takes what there is for the whole.
    """
    with services.transaction() as session:
        found = metrics.list_metric_names(session, job_queries.find_job(session, job_id))
    wanted = [name for name in found if names is None or name in names]
    at_once = limit or POINTS_AT_ONCE

    def parts() -> Iterator[str]:
        yield "name,step,value\n"
        for name in wanted:
            step, has_more = after_step, True
            while has_more:
                has_more = False  # nor is there any where the curve has gone with a retry from scratch
                for curve in read_metrics(services, job_id, names=[name], after_step=step, limit=at_once):
                    yield "".join(f"{name},{point.step},{point.value!r}\n" for point in curve.points)
                    step = curve.points[-1].step if curve.points else step
                    has_more = curve.has_more and limit is None

    return parts()


def list_files(
    services: TenantServices, job_id: str, *, kinds: Sequence[ArtifactKind] | None
) -> list[schemas.StoredFile]:
    """List a job's files of some kinds, each with a link."""
    with services.transaction() as session:
        job_id = job_queries.find_job(session, job_id)
        rows = artifacts.list_artifacts(session, job_id, kinds=kinds)
    return [_stored_file(services, row) for row in rows]


def list_checkpoints(services: TenantServices, job_id: str) -> list[schemas.Checkpoint]:
    """List a job's complete checkpoints, the one to resume from first."""
    with services.transaction() as session:
        job_id = job_queries.find_job(session, job_id)
        checkpoints = artifacts.list_checkpoints(session, job_id)
    return [
        schemas.Checkpoint(
            attempt=checkpoint.attempt,
            step=checkpoint.step,
            files=[_stored_file(services, row) for row in checkpoint.files],
        )
        for checkpoint in checkpoints
    ]


def link_to_weights(services: TenantServices, job_id: str, form: WeightsForm) -> schemas.WeightsLink:
    """Make a link to the student of a job that has succeeded, in one of its forms."""
    with services.transaction() as session:
        job = job_queries.get_job(session, job_id)
        if job.status not in TERMINAL_STATUSES:
            raise WeightsNotReadyError(f"The job is {job.status}; its weights come when it has succeeded.")
        archive = artifacts.get_student_archive(session, job.id)
        if form == "archive":
            file: Artifact | None = archive
        else:
            path = WEIGHTS_PATHS[form]
            file = artifacts.find_artifact(
                session, job.id, attempt=archive.attempt, path=path, kind="student_file"
            )
    if file is None:
        raise _left_out(job.spec, form)
    name = f"{job.id}-student{WEIGHTS_SUFFIXES[form]}"
    return schemas.WeightsLink(
        url=services.link_to_file(file.key, filename=name),
        size=file.size,
        sha256=file.sha256,
    )


def _left_out(spec: Mapping[str, Any], form: WeightsForm) -> WeightsLeftOutError:
    if form == "single-file" and not spec.get("export", {}).get("single_file", True):
        why = "The job's specification left it out: export.single_file is false. Clone the job with it true."
    else:
        why = "The student's U-Net is not one file. GET /jobs/{id}/artifacts lists all its files."
    return WeightsLeftOutError(why, field="format", allowed=["archive"])


def _stored_file(services: TenantServices, row: Artifact) -> schemas.StoredFile:
    return schemas.StoredFile(
        kind=row.kind,
        attempt=row.attempt,
        step=row.step,
        path=row.path,
        size=row.size,
        sha256=row.sha256,
        created_at=row.created_at,
        url=services.link_to_file(row.key),
    )
