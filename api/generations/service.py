"""What the routes of generations do: plain blocking functions that run in the thread pool.

The one that also asks the object store is a coroutine, which does that in threads meant for it.
"""

import secrets
from datetime import datetime, timedelta
from http import HTTPStatus
from typing import Any

from starlette.concurrency import run_in_threadpool

from api.generations import schemas
from api.idempotency import Carried, carry_out_once, key_of
from api.tenant_services import TenantServices
from core.spec import DistillationSpec, student_name
from store import artifacts, generations, job_queries
from store.database import Session, server_now
from store.errors import InvalidInputError, JobNotSucceededError, NotFoundError
from store.generations import Drawing
from store.idempotency import KeptAnswer
from store.interactive_capacity import InteractiveCapacity, interactive_capacity
from store.models import Generation, Job
from store.quotas import Quotas


def generate(
    services: TenantServices,
    job_id: str,
    request: schemas.GenerationRequest,
    idempotency_key: str | None = None,
) -> Carried:
    """Write a generation, or find the answer that the same request got before."""

    def write(session: Session, now: datetime) -> tuple[KeptAnswer, str]:
        job = job_queries.get_job(session, job_id)
        drawings = [
            _drawing(session, job, choice, request, field=f"models.{position}.job_id")
            for position, choice in enumerate(request.models)
        ]
        generation = generations.create_generation(
            session,
            job_id=job.id,
            prompt=request.prompt,
            seed=secrets.randbelow(schemas.MAX_SEED + 1) if request.seed is None else request.seed,
            drawings=drawings,
            now=now,
            watch_seconds=services.settings.generation_watch_seconds,
            quotas=Quotas.by_default(services.settings),
        )
        answer = _describe(services, generation, _capacity(services, session))
        location = f"/generations/{generation.id}"
        return KeptAnswer(HTTPStatus.ACCEPTED, answer.model_dump_json(), location), job.id

    return carry_out_once(
        services, key_of(idempotency_key, "generate", job_id, request.model_dump_json()), write
    )


def _drawing(
    session: Session, job: Job, choice: schemas.ModelChoice, request: schemas.GenerationRequest, *, field: str
) -> Drawing:
    """Say how a model draws: as its job evaluated it, but for what the request wants otherwise."""
    if choice.job_id is not None:
        try:
            job = job_queries.get_job(session, choice.job_id)
        except NotFoundError as error:
            raise InvalidInputError(error.detail, field=field) from error
    if job.status != "succeeded":
        raise JobNotSucceededError(
            f"Job {job.id} is {job.status}; its models can draw when it has succeeded."
        )
    attempt = artifacts.get_student_archive(session, job.id).attempt
    spec = DistillationSpec.model_validate(job.spec)
    is_student = choice.model == "student"
    how = spec.student_drawing if is_student else spec.evaluation
    measured = (job.result or {}).get("teacher", {})
    return Drawing(
        model=choice.model,
        job_id=job.id,
        attempt=attempt,
        teacher=spec.teacher,
        teacher_revision=measured.get("revision"),
        name=student_name(spec.student) if is_student else spec.teacher,
        sampler=request.sampler or how.sampler,
        steps=request.steps or min(how.steps, schemas.MAX_STEPS),
        guidance_scale=request.guidance_scale or how.guidance_scale,
    )


def read_generation(services: TenantServices, generation_id: str, *, wait: float = 0) -> schemas.Generation:
    """Read a generation for somebody who will wait for so many seconds, which keeps it wanted."""
    watch = timedelta(seconds=wait + services.settings.generation_watch_seconds)
    with services.transaction() as session:
        generations.keep_watched(session, generation_id, until=server_now(session) + watch)
        row = generations.get_generation(session, generation_id)
        return _describe(services, row, _capacity(services, session))


def has_ended(generation: schemas.Generation) -> bool:
    """Tell whether nothing about the generation will change any more."""
    return generation.status not in generations.OPEN


def cancel_generation(services: TenantServices, generation_id: str) -> schemas.Generation:
    """End a generation."""
    with services.transaction() as session:
        row = generations.cancel_generation(session, generation_id=generation_id, now=server_now(session))
        return _describe(services, row, None)


def delete_generation(services: TenantServices, generation_id: str) -> None:
    """Delete a generation with its pictures."""
    with services.transaction() as session:
        generations.delete_generation(session, generation_id=generation_id, now=server_now(session))


async def read_picture(services: TenantServices, generation_id: str, position: int) -> bytes:
    """Read a picture itself, for pages, which show nothing of another origin."""
    key = await run_in_threadpool(_find_picture, services, generation_id, position)
    return await services.object_store_threads.run(services.objects.read_object, key)


def _find_picture(services: TenantServices, generation_id: str, position: int) -> str:
    with services.transaction() as session:
        drawings = generations.get_generation(session, generation_id).drawings
    if position not in range(len(drawings)) or "key" not in drawings[position]:
        raise NotFoundError("The generation has no such picture.")
    key: str = drawings[position]["key"]
    return key


def capacity(services: TenantServices) -> InteractiveCapacity:
    """Say whether anybody could draw at present."""
    with services.transaction() as session:
        return _capacity(services, session)


def _capacity(services: TenantServices, session: Session) -> InteractiveCapacity:
    return interactive_capacity(
        session,
        now=server_now(session),
        lease_seconds=services.settings.interactive_lease_seconds,
    )


def _describe(
    services: TenantServices, row: Generation, capacity: InteractiveCapacity | None
) -> schemas.Generation:
    return schemas.Generation.of(row, [_link(services, drawing) for drawing in row.drawings], capacity)


def _link(services: TenantServices, drawing: dict[str, Any]) -> str | None:
    if "key" not in drawing:
        return None
    return services.link_to_file(drawing["key"])
