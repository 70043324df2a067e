"""Routes of jobs.

Handlers that touch the database alone are plain functions, which run in the thread pool. The two that wait,
the long poll and the stream, are coroutines, and wait without a thread or a connection; so are those that may
ask the object store, which has threads of its own.
"""

import logging
from typing import Annotated, Any

from fastapi import APIRouter, BackgroundTasks, Body, Header, Path, Query, Request, Response
from fastapi.responses import RedirectResponse, StreamingResponse
from starlette.concurrency import run_in_threadpool

from api.idempotency import Carried
from api.jobs import hints, schemas, service
from api.jobs.requests import Submission
from api.jobs.streams import stream_events
from api.long_poll import CHANGES, IfNoneMatch, Wait, answer_news
from api.openapi import created, media, problems, repeatable
from api.pagination import MAX_INTEGER, Limit, ListPage
from api.request_headers import IdempotencyKeyHeader, RequireJson, accepts
from api.tenant_services import TenantServices, TenantServicesDependency
from store.models import Status

LOGGER = logging.getLogger(__name__)

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
CREATED = created("Path of the job.")
WEIGHTS_HEADERS = {
    "Location": {"description": "Of the weights.", "schema": {"type": "string"}},
    "X-Content-Sha256": {
        "description": "SHA-256 of the weights, in hexadecimal.",
        "schema": {"type": "string"},
    },
    "X-Content-Size": {"description": "Bytes of the weights.", "schema": {"type": "integer"}},
}


@router.post(
    "",
    status_code=201,
    summary="Submit a job",
    response_description="The job is queued.",
    dependencies=[RequireJson],
    response_model=schemas.Job,
    responses={**CREATED, **problems(400, 409, 413, 415, 422, 503)},
)
async def create_job(
    services: TenantServicesDependency,
    submission: SubmissionBody,
    idempotency_key: IdempotencyKeyHeader,
    background: BackgroundTasks,
) -> Response:
    """Check a specification and queue the job.

    The workers are told after the answer has been sent; a broker that is down delays the job, no more.
    """
    carried = await service.submit_job(services, submission, idempotency_key)
    return _announce(services, carried, background)


def _announce(services: TenantServices, carried: Carried, background: BackgroundTasks) -> Response:
    """Answer, and tell the workers of a job that waits for them since this request."""
    if not carried.is_replay:
        job = schemas.Job.model_validate_json(carried.answer.body)
        LOGGER.info("job accepted", extra={"job_id": job.id})
        background.add_task(hints.send, services, job)
    return carried.response()


@router.get("", summary="List jobs", responses=problems(422, 503))
def list_jobs(
    services: TenantServicesDependency,
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
    responses={**CHANGES, **problems(404, 422, 503)},
)
async def read_job(
    services: TenantServicesDependency,
    job_id: JobId,
    response: Response,
    wait: Wait = 0,
    if_none_match: IfNoneMatch = None,
) -> Any:
    """Read a job.

    With `wait` the answer comes as soon as the job has another version than the one in `If-None-Match`, or,
    without that header, than the one it has now; at the latest after that many seconds. It comes at once when
    the job has ended. A version still the same as in `If-None-Match` is answered with 304.
    """

    async def read() -> schemas.Job:
        return await run_in_threadpool(service.read_job, services, job_id)

    return await answer_news(
        services, response, read, wait=wait, if_none_match=if_none_match, has_ended=service.has_ended
    )


@router.post("/{job_id}/cancel", summary="Cancel a job", responses=problems(404, 409, 422, 503))
def cancel_job(services: TenantServicesDependency, job_id: JobId) -> schemas.Job:
    """Cancel a job that waits or is paused at once, or ask the worker of a running one to stop.

    The worker hears of it within a heartbeat (10 s). Its trainer then writes a checkpoint; one that takes
    longer than 120 s is killed, and the last checkpoint before is kept. Asking twice is harmless.
    """
    return service.cancel_job(services, job_id)


@router.post("/{job_id}/pause", summary="Pause a job", responses=problems(404, 409, 422, 503))
def pause_job(services: TenantServicesDependency, job_id: JobId) -> schemas.Job:
    """Pause a queued job at once, or ask the worker of a running one to stop, as for a cancel.

    A paused job keeps its checkpoints and frees its accelerator. Asking twice is harmless.
    """
    return service.pause_job(services, job_id)


@router.post("/{job_id}/resume", summary="Resume a paused job", responses=problems(404, 409, 422, 503))
def resume_job(services: TenantServicesDependency, job_id: JobId, background: BackgroundTasks) -> schemas.Job:
    """Queue a paused job again; any worker goes on from its last checkpoint.

    While the worker of a running job has yet to hear that it shall pause, this withdraws the wish. A job that
    is neither stays as it is.
    """
    return _tell_workers(services, service.resume_job(services, job_id), background)


@router.post("/{job_id}/save-now", summary="Ask for a checkpoint now", responses=problems(404, 409, 422, 503))
def save_job_now(services: TenantServicesDependency, job_id: JobId) -> schemas.Job:
    """Ask a running training to write a checkpoint at its next step, and to go on.

    The worker hears of it within a heartbeat (10 s). A `checkpoint` event tells when it is stored; of all
    checkpoints the newest two are kept. Asking again before the worker has heard is harmless. A job that does
    not train at present is answered with 409 and the type `job_not_training`.
    """
    return service.request_at_step(services, job_id, "checkpoint")


@router.post(
    "/{job_id}/sample-now", summary="Ask for sample pictures now", responses=problems(404, 409, 422, 503)
)
def sample_job_now(services: TenantServicesDependency, job_id: JobId) -> schemas.Job:
    """Ask a running training to draw its sample pictures at its next step, and to go on.

    As for a checkpoint; a `sample` event tells when they can be fetched.
    """
    return service.request_at_step(services, job_id, "sample")


@router.post(
    "/{job_id}/retry",
    summary="Try a failed or cancelled job again",
    response_model=schemas.Job,
    responses={**repeatable(), **problems(400, 404, 409, 422, 503)},
)
def retry_job(
    services: TenantServicesDependency,
    job_id: JobId,
    idempotency_key: IdempotencyKeyHeader,
    background: BackgroundTasks,
    from_scratch: Annotated[
        bool, Query(description="Begin anew instead of going on from the last checkpoint.")
    ] = False,
) -> Response:
    """Queue a job that failed or was cancelled again, with all its attempts and its whole time before it.

    A retry that is repeated is refused, as the job then waits; repeated with the same key it gets its first
    answer.
    """
    carried = service.retry_job(services, job_id, from_scratch=from_scratch, idempotency_key=idempotency_key)
    return _announce(services, carried, background)


def _tell_workers(services: TenantServices, job: schemas.Job, background: BackgroundTasks) -> schemas.Job:
    if job.status == "queued":
        background.add_task(hints.send, services, job)
    return job


@router.post(
    "/{job_id}/clone",
    status_code=201,
    summary="Submit a job's specification again",
    response_description="The new job is queued.",
    response_model=schemas.Job,
    responses={**CREATED, **problems(400, 404, 409, 413, 422, 503)},
)
async def clone_job(
    services: TenantServicesDependency,
    job_id: JobId,
    idempotency_key: IdempotencyKeyHeader,
    background: BackgroundTasks,
    changes: CloneBody = None,
) -> Response:
    """Submit a new job with the specification and options of this one, whatever its status.

    Fields in the body differ: groups of fields such as `training` field by field, all others as a whole.
    `options.not_before` is not taken over.
    """
    carried = await service.clone_job(services, job_id, changes or {}, idempotency_key)
    return _announce(services, carried, background)


@router.delete(
    "/{job_id}",
    status_code=204,
    response_class=Response,
    summary="Delete a job",
    responses=problems(404, 409, 422, 503),
)
def delete_job(services: TenantServicesDependency, job_id: JobId) -> None:
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
    services: TenantServicesDependency,
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
    services: TenantServicesDependency,
    request: Request,
    job_id: JobId,
    name: Annotated[list[str] | None, Query(description="Only these curves.", max_length=100)] = None,
    after_step: Annotated[int, Query(ge=-1, le=MAX_INTEGER, description="Only points of later steps.")] = -1,
    limit: Annotated[
        int | None,
        Query(
            ge=1,
            le=service.POINTS_AT_ONCE,
            description=f"Points of each curve; {service.POINTS_AT_ONCE:,} by default, of a table all.",
        ),
    ] = None,
) -> Any:
    """Read the training curves of a job; each step counts once, as the latest attempt did it.

    A table has every point, however many there are, unless `limit` is given.
    """
    if accepts(request, "text/csv"):
        table = service.write_metrics(services, job_id, names=name, after_step=after_step, limit=limit)
        return StreamingResponse(table, media_type="text/csv")
    limit = limit or service.POINTS_AT_ONCE
    return ListPage(
        items=service.read_metrics(services, job_id, names=name, after_step=after_step, limit=limit)
    )


@router.get("/{job_id}/artifacts", summary="Files of a job", responses=problems(404, 422, 503))
def list_artifacts(services: TenantServicesDependency, job_id: JobId) -> ListPage[schemas.StoredFile]:
    """List the files that a job has left, each with a link to download it."""
    return ListPage(items=service.list_files(services, job_id, kinds=None))


@router.get("/{job_id}/samples", summary="Sample pictures", responses=problems(404, 422, 503))
def list_samples(services: TenantServicesDependency, job_id: JobId) -> ListPage[schemas.StoredFile]:
    """List the grids of pictures that were drawn during training, by step."""
    return ListPage(items=service.list_files(services, job_id, kinds=["sample"]))


@router.get("/{job_id}/logs", summary="Logs of the trainer", responses=problems(404, 422, 503))
def list_logs(services: TenantServicesDependency, job_id: JobId) -> ListPage[schemas.StoredFile]:
    """List the trainer's logs, one for each attempt.

    Of an attempt that runs, or whose worker was lost, it is the end of what there was at the last checkpoint.
    """
    return ListPage(items=service.list_files(services, job_id, kinds=["log"]))


@router.get("/{job_id}/checkpoints", summary="Checkpoints", responses=problems(404, 422, 503))
def list_checkpoints(services: TenantServicesDependency, job_id: JobId) -> ListPage[schemas.Checkpoint]:
    """List the complete checkpoints of a job, the newest first."""
    return ListPage(items=service.list_checkpoints(services, job_id))


@router.get(
    "/{job_id}/weights",
    summary="Download the student",
    status_code=307,
    response_class=RedirectResponse,
    response_description="The weights are at Location, for an hour; that server serves ranges.",
    responses={307: {"headers": WEIGHTS_HEADERS}, **problems(404, 409, 422, 503)},
)
def read_weights(
    services: TenantServicesDependency,
    job_id: JobId,
    form: Annotated[
        service.WeightsForm,
        Query(
            alias="format",
            description="`archive`: a ZIP of the folder that diffusers loads; `unet`: its U-Net alone, as "
            "safetensors; `single-file`: the U-Net under the original names, as other tools read it.",
        ),
    ] = "archive",
) -> Response:
    """Redirect to the student of a job that has succeeded, whole or in part.

    A form that the job's `export` left out is answered with 404 and the type `weights_left_out`.
    """
    link = service.link_to_weights(services, job_id, form)
    headers = {"X-Content-Sha256": link.sha256, "X-Content-Size": str(link.size)}
    return RedirectResponse(link.url, status_code=307, headers=headers)
