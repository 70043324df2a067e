"""Whether the process is alive, and whether the servers that it depends on answer."""

import asyncio
import logging
from collections.abc import Callable
from typing import Literal

import anyio
import anyio.to_thread
from fastapi import APIRouter, Request
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel
from starlette.responses import Response

from api.field_errors import FieldError
from api.openapi import problems
from api.problems import RETRY_AFTER_SECONDS, ProblemResponse
from api.services import Services, ServicesDependency
from store import database, queue
from store.errors import UnavailableError

LOGGER = logging.getLogger(__name__)

CHECK_SECONDS = 2.0

router = APIRouter(tags=["health"])


class Health(BaseModel):
    """The process is alive."""

    status: Literal["alive"] = "alive"


class Readiness(BaseModel):
    """Every server that the service depends on answers."""

    status: Literal["ready"] = "ready"
    checks: list[str]


@router.get("/healthz", summary="Is the process alive?", responses=problems())
async def read_health() -> Health:
    """Answer without asking any other server."""
    return Health()


@router.get("/readyz", summary="Can jobs be taken?", response_model=Readiness, responses=problems(503))
async def read_readiness(request: Request, services: ServicesDependency) -> Readiness | Response:
    """Ask Postgres, the queue and the object store, each for two seconds at most."""
    checks = _checks(services)
    # Threads of its own: a service that is busy is not one that cannot reach its servers.
    threads = anyio.CapacityLimiter(len(checks))
    answers = await asyncio.gather(*(_answers(name, check, threads) for name, check in checks.items()))
    silent = [name for name, answered in zip(checks, answers, strict=True) if not answered]
    if not silent:
        return Readiness(checks=list(checks))
    return ProblemResponse(
        request,
        status=503,
        code="not_ready",
        title="The service is not ready",
        detail=f"No answer from: {', '.join(silent)}.",
        field_errors=[FieldError(field=name, message="It does not answer.") for name in silent],
        headers={"Retry-After": str(RETRY_AFTER_SECONDS)},
    )


@router.get(
    "/metrics",
    summary="Metrics for Prometheus",
    response_class=Response,
    responses={
        200: {
            "description": "Prometheus's text format.",
            "content": {"text/plain": {"schema": {"type": "string"}}},
        },
        **problems(),
    },
)
def read_monitoring(services: ServicesDependency) -> Response:
    """Read the metrics of this API process and of the job table.

    A training curve is among `/jobs/{job_id}/metrics`, not here.
    """
    return Response(services.metrics.text(), media_type=CONTENT_TYPE_LATEST)


def _checks(services: Services) -> dict[str, Callable[[], None]]:
    return {
        "postgres": lambda: database.ping(services.engine),
        "queue": lambda: queue.ping(services.settings),
        "object_store": services.objects.ping,
    }


async def _answers(name: str, check: Callable[[], None], threads: anyio.CapacityLimiter) -> bool:
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            await anyio.to_thread.run_sync(check, abandon_on_cancel=True, limiter=threads)
    except (TimeoutError, UnavailableError) as error:
        LOGGER.warning("%s does not answer: %r", name, error)
        return False
    return True
