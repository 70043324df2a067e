"""Routes of jobs.

Handlers that touch the database are plain functions, which run in the thread pool. The two that wait, the
long poll and the stream, are coroutines, and wait without a thread or a connection.
"""

from typing import Annotated, Any

from fastapi import APIRouter, BackgroundTasks, Body, Header, Path, Query, Request, Response
from fastapi.responses import RedirectResponse, StreamingResponse
from starlette.concurrency import run_in_threadpool

from api.jobs import hints, schemas, service
from api.jobs.requests import Submission
from api.jobs.streams import stream_events
from api.openapi import Responses, media, problems
from api.pagination import MAX_INTEGER, Limit, ListPage
from api.request_headers import IdempotencyKeyHeader, RequireJson, accepts, entity_tag, matches
from api.services import Services, ServicesDependency
from store.models import Status

MAX_WAIT_SECONDS = 60
NO_NUL = r"^[^\x00]*$"

router = APIRouter(prefix="/jobs", tags=["jobs"])

JobId = Annotated[str, Path(description="Id of a job.", examples=[schemas.JOB_EXAMPLE["id"]])]
SubmissionBody = Annotated[
    Submission,
    Body(
        openapi_examples={
            "smallest": {"summary": "Everything by default", "value": {"teacher": "emoji-64"}},
            "inline": {
                "summary": "A width student, captions in the request",
                "value": {
                    "teacher": "emoji-64",
                    "student": {"width": 0.75},
                    "captions": {"kind": "inline", "texts": ["cat", "dog", "small red apple"]},
                    "drawn": {"texts": ["cat", "dog"]},
                    "training": {"steps": 2000, "batch_size": 64, "learning_rate": 1e-3},
                },
            },
            "options": {
                "summary": "Urgent, and for an hour at most",
                "value": {"teacher": "emoji-64", "options": {"priority": 10, "max_runtime_s": 3600}},
            },
        }
    ),
]
CloneBody = Annotated[
    dict[str, Any] | None,
    Body(
        description="Fields of a submission that are to differ.",
        openapi_examples={
            "same": {"summary": "The very same work", "value": {}},
            "changed": {
                "summary": "Another student and learning rate",
                "value": {"student": "b-tiny", "training": {"learning_rate": 1e-4}},
            },
        },
    ),
]
CREATED: Responses = {
    201: {"headers": {"Location": {"description": "Path of the job.", "schema": {"type": "string"}}}}
}


@router.post(
    "",
    status_code=201,
    summary="Submit a job",
    response_description="The job is queued.",
    dependencies=[RequireJson],
    responses={**CREATED, **problems(400, 409, 413, 415, 422, 503)},
)
def create_job(
    services: ServicesDependency,
    submission: SubmissionBody,
    idempotency_key: IdempotencyKeyHeader,
    background: BackgroundTasks,
    response: Response,
) -> schemas.Job:
    """Check a specification and queue the job.

    The workers are told after the answer has been sent; a broker that is down delays the job, no more.
    """
    accepted = service.submit_job(services, submission, idempotency_key)
    return _announce(services, accepted, background, response)


def _announce(
    services: Services, accepted: service.Accepted, background: BackgroundTasks, response: Response
) -> schemas.Job:
    """Say where a new job is, and tell the workers of it."""
    response.headers["Location"] = accepted.job.links["self"]
    if accepted.is_replay:
        response.headers["Idempotency-Replayed"] = "true"
    else:
        background.add_task(hints.send, services.settings, accepted.job)
    return accepted.job


@router.get("", summary="List jobs", responses=problems(422, 503))
def list_jobs(
    services: ServicesDependency,
    after: Annotated[
        str | None, Query(max_length=100, description="Cursor: the `next` of the page before.")
    ] = None,
    limit: Limit = 20,
    status: Status | None = None,
    teacher: Annotated[str | None, Query(max_length=512, pattern=NO_NUL)] = None,
    search: Annotated[
        str | None,
        Query(
            max_length=200,
            pattern=NO_NUL,
            description="Only jobs whose id, teacher or student holds all these words.",
        ),
    ] = None,
) -> ListPage[schemas.JobSummary]:
    """List jobs, the newest first."""
    return service.list_jobs(
        services, after=after, limit=limit, status=status, teacher=teacher, search=search
    )


@router.get(
    "/{job_id}",
    summary="Read a job, or wait for it to change",
    response_model=schemas.Job,
    responses={
        200: {"headers": {"ETag": {"description": "Of the job's version.", "schema": {"type": "string"}}}},
        304: {"description": "The job still has the version in If-None-Match."},
        **problems(404, 422, 503),
    },
)
async def read_job(
    services: ServicesDependency,
    job_id: JobId,
    response: Response,
    wait: Annotated[
        float, Query(ge=0, le=MAX_WAIT_SECONDS, description="Seconds to wait for a change.", examples=[30])
    ] = 0,
    if_none_match: Annotated[
        str | None, Header(description="ETag of the version that the client has.")
    ] = None,
) -> Any:
    """Read a job.

    With `wait` the answer comes as soon as the job has another version than the one in `If-None-Match`, or,
    without that header, than the one it has now; at the latest after that many seconds. It comes at once when
    the job has ended. A version still the same as in `If-None-Match` is answered with 304.
    """
    job = await run_in_threadpool(service.read_job, services, job_id)
    is_news = if_none_match is not None and not matches(if_none_match, job.version)
    if (
        wait
        and not is_news
        and not service.has_ended(job)
        and await services.watch.changed(job.id, job.version, timeout_seconds=wait)
    ):
        job = await run_in_threadpool(service.read_job, services, job_id)
    headers = {"ETag": entity_tag(job.version)}
    if matches(if_none_match, job.version):
        return Response(status_code=304, headers=headers)
    response.headers.update(headers)
    return job


@router.post("/{job_id}/cancel", summary="Cancel a job", responses=problems(404, 409, 422, 503))
def cancel_job(services: ServicesDependency, job_id: JobId) -> schemas.Job:
    """Cancel a job that waits or is paused at once, or ask the worker of a running one to stop.

    The worker hears of it within a heartbeat (10 s). Its trainer then writes a checkpoint; one that takes
    longer than 120 s is killed, and the last checkpoint before is kept. Asking twice is harmless.
    """
    return service.cancel_job(services, job_id)


@router.post("/{job_id}/pause", summary="Pause a job", responses=problems(404, 409, 422, 503))
def pause_job(services: ServicesDependency, job_id: JobId) -> schemas.Job:
    """Pause a queued job at once, or ask the worker of a running one to stop, as for a cancel.

    A paused job keeps its checkpoints and frees its accelerator. Asking twice is harmless.
    """
    return service.pause_job(services, job_id)


@router.post("/{job_id}/resume", summary="Resume a paused job", responses=problems(404, 409, 422, 503))
def resume_job(services: ServicesDependency, job_id: JobId, background: BackgroundTasks) -> schemas.Job:
    """Queue a paused job again; any worker goes on from its last checkpoint.

    While the worker of a running job has yet to hear that it shall pause, this withdraws the wish. A job that
    is neither stays as it is.
    """
    return _tell_workers(services, service.resume_job(services, job_id), background)


@router.post(
    "/{job_id}/retry", summary="Try a failed or cancelled job again", responses=problems(404, 409, 422, 503)
)
def retry_job(
    services: ServicesDependency,
    job_id: JobId,
    background: BackgroundTasks,
    from_scratch: Annotated[
        bool, Query(description="Begin anew instead of going on from the last checkpoint.")
    ] = False,
) -> schemas.Job:
    """Queue a job that failed or was cancelled again, with all its attempts and its whole time before it."""
    job = service.retry_job(services, job_id, from_scratch=from_scratch)
    return _tell_workers(services, job, background)


def _tell_workers(services: Services, job: schemas.Job, background: BackgroundTasks) -> schemas.Job:
    if job.status == "queued":
        background.add_task(hints.send, services.settings, job)
    return job


@router.post(
    "/{job_id}/clone",
    status_code=201,
    summary="Submit a job's specification again",
    response_description="The new job is queued.",
    responses={**CREATED, **problems(400, 404, 409, 413, 422, 503)},
)
def clone_job(
    services: ServicesDependency,
    job_id: JobId,
    idempotency_key: IdempotencyKeyHeader,
    background: BackgroundTasks,
    response: Response,
    changes: CloneBody = None,
) -> schemas.Job:
    """Submit a new job with the specification and options of this one, whatever its status.

    Fields in the body differ: groups of fields such as `training` field by field, all others as a whole.
    `options.not_before` is not taken over.
    """
    accepted = service.clone_job(services, job_id, changes or {}, idempotency_key)
    return _announce(services, accepted, background, response)


@router.delete("/{job_id}", status_code=204, summary="Delete a job", responses=problems(404, 409, 422, 503))
def delete_job(services: ServicesDependency, job_id: JobId) -> None:
    """Delete a job that does not run, with its history and all its files.

    The job is gone at once; its files follow within seconds. Deleting it twice is harmless.
    """
    service.delete_job(services, job_id)


@router.get(
    "/{job_id}/events",
    summary="List a job's events, or stream them",
    response_model=ListPage[schemas.JobEvent],
    responses={
        **media(
            "text/event-stream",
            "A page of events; or, with `Accept: text/event-stream`, every event as it happens.",
            'id: 1\nevent: status\ndata: {"sequence": 1, "type": "status", …}\n\n',
        ),
        204: {
            "description": "The stream has nothing more: the job has ended and the client has every event."
        },
        **problems(404, 422, 503),
    },
)
async def list_events(
    services: ServicesDependency,
    request: Request,
    job_id: JobId,
    after: Annotated[
        int, Query(ge=0, le=MAX_INTEGER, description="Only events with a higher sequence number.")
    ] = 0,
    limit: Limit = 100,
    last_event_id: Annotated[
        int | None,
        Header(ge=0, le=MAX_INTEGER, description="Where a stream goes on; counts before `after`."),
    ] = None,
) -> Any:
    """List a job's events in order, or stream them.

    A stream ends after the event that ends the job, and at the latest after ten minutes; a client that
    reconnects with `Last-Event-ID` misses no event and gets none twice. Comments keep a silent stream open.
    """
    job = await run_in_threadpool(service.read_job, services, job_id)
    if not accepts(request, "text/event-stream"):
        batch = await run_in_threadpool(service.read_events, services, job.id, after=after, limit=limit)
        cursor = str(batch.events[-1].sequence) if batch.has_more else None
        return ListPage(items=batch.events, has_more=batch.has_more, next=cursor)
    seen = min(after if last_event_id is None else last_event_id, job.version)
    if service.has_ended(job) and seen == job.version:
        return Response(status_code=204)
    return StreamingResponse(
        stream_events(services, job.id, seen),
        media_type="text/event-stream",
        headers={"X-Accel-Buffering": "no"},
    )


@router.get(
    "/{job_id}/metrics",
    summary="Training curves",
    response_model=ListPage[schemas.MetricSeries],
    responses={
        **media(
            "text/csv", "The curves; with `Accept: text/csv` as a table.", "name,step,value\nloss,50,0.31\n"
        ),
        **problems(404, 422, 503),
    },
)
def list_metrics(
    services: ServicesDependency,
    request: Request,
    job_id: JobId,
    name: Annotated[list[str] | None, Query(description="Only these curves.", max_length=100)] = None,
    after_step: Annotated[int, Query(ge=-1, le=MAX_INTEGER, description="Only points of later steps.")] = -1,
    limit: Annotated[int, Query(ge=1, le=10_000, description="Points of each curve.")] = 10_000,
) -> Any:
    """Read the training curves of a job; each step counts once, as the latest attempt did it."""
    series = service.read_metrics(services, job_id, names=name, after_step=after_step, limit=limit)
    if accepts(request, "text/csv"):
        rows = (f"{curve.name},{point.step},{point.value!r}" for curve in series for point in curve.points)
        return Response("\n".join(["name,step,value", *rows, ""]), media_type="text/csv")
    return ListPage(items=series)


@router.get("/{job_id}/artifacts", summary="Files of a job", responses=problems(404, 422, 503))
def list_artifacts(services: ServicesDependency, job_id: JobId) -> ListPage[schemas.StoredFile]:
    """List the files that a job has left, each with a link to download it."""
    return ListPage(items=service.list_files(services, job_id, kinds=None))


@router.get("/{job_id}/samples", summary="Sample pictures", responses=problems(404, 422, 503))
def list_samples(services: ServicesDependency, job_id: JobId) -> ListPage[schemas.StoredFile]:
    """List the grids of pictures that were drawn during training, by step."""
    return ListPage(items=service.list_files(services, job_id, kinds=["sample"]))


@router.get("/{job_id}/logs", summary="Logs of the trainer", responses=problems(404, 422, 503))
def list_logs(services: ServicesDependency, job_id: JobId) -> ListPage[schemas.StoredFile]:
    """List the trainer's logs, one for each attempt that has ended."""
    return ListPage(items=service.list_files(services, job_id, kinds=["log"]))


@router.get("/{job_id}/checkpoints", summary="Checkpoints", responses=problems(404, 422, 503))
def list_checkpoints(services: ServicesDependency, job_id: JobId) -> ListPage[schemas.Checkpoint]:
    """List the complete checkpoints of a job, the newest first."""
    return ListPage(items=service.list_checkpoints(services, job_id))


@router.get(
    "/{job_id}/weights",
    summary="Download the student",
    status_code=307,
    response_class=RedirectResponse,
    response_description="The archive of the student's folder is at Location, for an hour.",
    responses=problems(404, 409, 422, 503),
)
def read_weights(services: ServicesDependency, job_id: JobId) -> str:
    """Redirect to a ZIP archive of the student, a folder that diffusers loads."""
    return service.link_to_weights(services, job_id)
