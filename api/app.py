"""The application: routes, middleware, and what runs beside the requests.

Served as ``python -m uvicorn --factory api.app:create_app_from_environment``. The reconciler runs as a
thread of this process; of several API processes one at a time does its work.
"""

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from api import health, problems
from api.body_limit import BodyLimitMiddleware
from api.comparisons import endpoints as comparisons
from api.estimates import endpoints as estimates
from api.host_guard import HostGuardMiddleware
from api.jobs import endpoints as jobs
from api.openapi import describe, operation_id
from api.pages import routes as pages
from api.request_context import RequestContextMiddleware
from api.services import Services
from api.shutdown import closing_on_signal
from api.teachers import endpoints as teachers
from store.errors import CondenserError
from store.reconciler import run_reconciler
from store.settings import Settings

API_VERSION = "0.1.0"
DESCRIPTION = """\
Condenser compresses text-to-image diffusion models: name a teacher, a student size and a source of captions,
and get a smaller, faster student as ordinary diffusers weights.

Every error is a problem document (RFC 9457) with a stable `type` that names the field at fault and its
allowed values. Lists come in pages: pass `next` as `after` while `has_more` is true.
"""
TAGS = [
    {"name": "jobs", "description": "Submit jobs, watch them, and fetch what they leave."},
    {"name": "estimates", "description": "What a job would take."},
    {"name": "comparisons", "description": "The students of one teacher, side by side."},
    {"name": "teachers", "description": "The models that can be distilled."},
    {"name": "health", "description": "For load balancers and operators."},
]


def create_app(settings: Settings) -> FastAPI:
    """Assemble the application; it connects to its servers on first use."""
    app = FastAPI(
        title="Condenser",
        summary="Distillation as a service for text-to-image diffusion models",
        description=DESCRIPTION,
        version=API_VERSION,
        openapi_tags=TAGS,
        generate_unique_id_function=operation_id,
        lifespan=_lifespan,
        redoc_url=None,
    )
    app.state.settings = settings
    for router in (jobs.router, estimates.router, comparisons.router, teachers.router, health.router):
        app.include_router(router)
    app.include_router(pages.router)
    app.add_exception_handler(CondenserError, problems.handle_condenser_error)
    app.add_exception_handler(RequestValidationError, problems.handle_validation_error)
    app.add_exception_handler(HTTPException, problems.handle_http_exception)
    # The last one added is the outermost.
    app.add_middleware(BodyLimitMiddleware, max_body_bytes=settings.max_body_bytes)
    app.add_middleware(HostGuardMiddleware, public_hosts=settings.public_hosts)
    app.add_middleware(RequestContextMiddleware)
    app.openapi = lambda: describe(app)  # type: ignore[method-assign]  # the framework's documented way
    return app


def create_app_from_environment() -> FastAPI:
    """Assemble the application from environment variables; the factory that the server calls."""
    return create_app(Settings())


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    services = Services(app.state.settings)
    app.state.services = services
    stop = threading.Event()
    reconciler = threading.Thread(
        target=run_reconciler,
        args=(services.engine, services.objects, services.settings, stop),
        name="reconciler",
    )
    reconciler.start()
    try:
        with closing_on_signal() as closing:
            app.state.closing = closing
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(services.watch.run(closing))
                yield
                closing.set()
    finally:
        stop.set()
        await asyncio.to_thread(reconciler.join)
        services.close()
