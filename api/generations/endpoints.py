"""Routes of generations: asked of a job, then read, cancelled and deleted by their own id."""

from typing import Annotated, Any

from fastapi import APIRouter, BackgroundTasks, Body, Path, Response
from starlette.concurrency import run_in_threadpool

from api.generations import hints, schemas, service
from api.jobs.endpoints import JobId
from api.long_poll import CHANGES, IfNoneMatch, Wait, answer_news
from api.openapi import accepted, problems
from api.request_headers import IdempotencyKeyHeader, RequireJson
from api.tenant_services import TenantServicesDependency

router = APIRouter(tags=["generations"])

GenerationId = Annotated[
    str, Path(description="Id of a generation.", examples=["019ab2d0-11aa-7c3a-9d52-0b6a4be1d9ab"])
]
GenerationBody = Annotated[
    schemas.GenerationRequest,
    Body(
        openapi_examples={
            "smallest": {
                "summary": "Teacher and student, as they were evaluated",
                "value": {"prompt": "cat"},
            },
            "chosen": {
                "summary": "This job's student beside another's, from one seed",
                "value": {
                    "prompt": "red apple",
                    "seed": 7,
                    "steps": 20,
                    "guidance_scale": 7.5,
                    "models": [
                        {"model": "student"},
                        {"model": "student", "job_id": "019ab2c4-7f1e-7c3a-9d52-0b6a4be1d9aa"},
                    ],
                },
            },
        }
    ),
]


@router.post(
    "/jobs/{job_id}/generate",
    status_code=202,
    summary="Draw with a job's teacher and student",
    response_description="The generation is queued.",
    dependencies=[RequireJson],
    response_model=schemas.Generation,
    responses={**accepted("Path of the generation."), **problems(400, 404, 409, 413, 415, 422, 503)},
)
def generate_pictures(
    services: TenantServicesDependency,
    job_id: JobId,
    request: GenerationBody,
    idempotency_key: IdempotencyKeyHeader,
    background: BackgroundTasks,
) -> Response:
    """Ask for pictures of a prompt by one or two models, from the same seed.

    An interactive worker draws them, beside any training; `waiting_reason` says when none is free. Only a job
    that has succeeded can draw. Whoever asked must read the generation from time to time (`?wait=` does):
    one that nobody asked about for 30 s is not drawn any more. Pictures are kept for a day.
    """
    carried = service.generate(services, job_id, request, idempotency_key)
    if not carried.is_replay:
        background.add_task(hints.send, services)
    return carried.response()


@router.get(
    "/generations/{generation_id}",
    summary="Read a generation, or wait for it to change",
    response_model=schemas.Generation,
    responses={**CHANGES, **problems(404, 422, 503)},
)
async def read_generation(
    services: TenantServicesDependency,
    generation_id: GenerationId,
    response: Response,
    wait: Wait = 0,
    if_none_match: IfNoneMatch = None,
) -> Any:
    """Read a generation with a link to each picture that is drawn.

    `wait` and `If-None-Match` do as for a job. Reading it says that somebody still waits.
    """

    async def read() -> schemas.Generation:
        return await run_in_threadpool(service.read_generation, services, generation_id, wait=wait)

    return await answer_news(
        services, response, read, wait=wait, if_none_match=if_none_match, has_ended=service.has_ended
    )


@router.post(
    "/generations/{generation_id}/cancel",
    summary="Cancel a generation",
    responses=problems(404, 409, 422, 503),
)
def cancel_generation(services: TenantServicesDependency, generation_id: GenerationId) -> schemas.Generation:
    """End a generation at once, whether it waits or is being drawn. Asking twice is harmless."""
    return service.cancel_generation(services, generation_id)


@router.delete(
    "/generations/{generation_id}",
    status_code=204,
    response_class=Response,
    summary="Delete a generation",
    responses=problems(404, 422, 503),
)
def delete_generation(services: TenantServicesDependency, generation_id: GenerationId) -> None:
    """Delete a generation with its pictures, drawn or not."""
    service.delete_generation(services, generation_id)
