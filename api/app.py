"""The application: routes, middleware, and what runs beside the requests.

Served by ``python -m api``. The reconciler and the sender of webhooks run as threads of this process; of
several API processes one at a time reconciles, and all send.
"""

import asyncio
import logging
import signal
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

import anyio.to_thread
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

from api import files, health, problems, reference
from api.auth import ADMIN, OF_CALLERS, READ, READ_OR_WRITE
from api.body_limit import BodyLimitMiddleware
from api.captions import endpoints as captions
from api.comparisons import endpoints as comparisons
from api.estimates import endpoints as estimates
from api.generations import endpoints as generations
from api.head_limit import HeadLimitMiddleware
from api.host_guard import HostGuardMiddleware
from api.jobs import endpoints as jobs
from api.keys import endpoints as keys
from api.monitoring import ApiMetrics
from api.openapi import describe, operation_id
from api.pages import routes as pages
from api.pages.captions import UPLOAD_PATH as PAGE_UPLOAD_PATH
from api.request_context import RequestContextMiddleware
from api.request_monitor import RequestMonitorMiddleware
from api.services import Services
from api.shutdown import closing_on_signal
from api.teachers import endpoints as teachers
from api.webhooks import endpoints as webhooks
from api.workers import endpoints as workers
from store import logs
from store.database import CONNECTIONS
from store.errors import CondenserError
from store.reconciler import run_reconciler
from store.settings import Settings
from store.sweeper import run_sweeper
from store.webhook_sender import run_webhook_sender

LOGGER = logging.getLogger(__name__)

DESCRIPTION = """\
Condenser compresses text-to-image diffusion models: name a teacher, a student size and a source of captions,
and get a smaller, faster student as ordinary diffusers weights.

Every request but those for health and these pages carries an API key as a bearer token, and sees what
belongs to the key's tenant.

Every error is a problem document (RFC 9457) with a stable `type` that names the field at fault and its
allowed values. Lists come in pages: pass `next` as `after` while `has_more` is true.
"""
SWEEPER_ENDS_SECONDS = 5.0
CORS_REQUEST_HEADERS = [
    "Authorization",
    "Content-Type",
    "Idempotency-Key",
    "If-None-Match",
    "Last-Event-ID",
    "X-Request-Id",
]
CORS_ANSWER_HEADERS = ["ETag", "Idempotency-Replayed", "Location", "Retry-After", "X-Request-Id"]
TAGS = [
    {"name": "jobs", "description": "Submit jobs, watch them, and fetch what they leave."},
    {"name": "generations", "description": "Draw with the models of a job that has succeeded."},
    {"name": "captions", "description": "Upload the captions that students learn from."},
    {"name": "estimates", "description": "What a job would take."},
    {"name": "comparisons", "description": "The students of one teacher, side by side."},
    {"name": "teachers", "description": "The models that can be distilled."},
    {"name": "workers", "description": "What there is to train on, and what it does."},
    {"name": "keys", "description": "Who may use the service."},
    {"name": "webhooks", "description": "Endpoints of yours that are told of jobs' moves."},
    {"name": "files", "description": "What the links to a job's files lead to, where that is this service."},
    {"name": "health", "description": "For load balancers and operators."},
]


def create_app(settings: Settings) -> FastAPI:
    """Assemble the application; it connects to its servers on first use."""
    app = FastAPI(
        title="Condenser",
        summary="Distillation as a service for text-to-image diffusion models",
        description=DESCRIPTION,
        version=version("condenser"),
        openapi_tags=TAGS,
        generate_unique_id_function=operation_id,
        lifespan=_lifespan,
        docs_url=None,
        redoc_url=None,
    )
    app.state.settings = settings
    app.state.metrics = ApiMetrics()
    for router in (
        jobs.router,
        captions.router,
        comparisons.router,
        generations.router,
        teachers.router,
        webhooks.router,
        workers.router,
    ):
        app.include_router(router, dependencies=[READ_OR_WRITE], responses=OF_CALLERS)
    app.include_router(estimates.router, dependencies=[READ], responses=OF_CALLERS)
    app.include_router(keys.router, dependencies=[ADMIN], responses=OF_CALLERS)
    for router in (files.router, health.router, reference.router):
        app.include_router(router)
    app.include_router(pages.router)
    app.add_exception_handler(CondenserError, problems.handle_condenser_error)
    app.add_exception_handler(RequestValidationError, problems.handle_validation_error)
    app.add_exception_handler(HTTPException, problems.handle_http_exception)
    # The last one added is the outermost.
    app.add_middleware(
        BodyLimitMiddleware,
        max_body_bytes=settings.max_body_bytes,
        own_limits={
            ("POST", path): settings.max_caption_file_bytes
            for path in (captions.UPLOAD_PATH, PAGE_UPLOAD_PATH)
        },
    )
    app.add_middleware(HeadLimitMiddleware)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["DELETE", "GET", "PATCH", "POST"],
            allow_headers=CORS_REQUEST_HEADERS,
            expose_headers=CORS_ANSWER_HEADERS,
        )
    app.add_middleware(
        HostGuardMiddleware, public_hosts=settings.public_hosts, allowed_origins=settings.cors_origins
    )
    app.add_middleware(RequestMonitorMiddleware, metrics=app.state.metrics)
    app.add_middleware(RequestContextMiddleware)
    app.openapi = lambda: describe(app)  # type: ignore[method-assign]  # the framework's documented way
    return app


def create_app_from_environment() -> FastAPI:
    """Assemble the application from environment variables; the factory that the server calls."""
    settings = Settings()
    logs.configure("api", settings)
    logging.getLogger("uvicorn.access").setLevel(
        logging.WARNING
    )  # `api.request_monitor` says more of a request
    return create_app(settings)


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    services = Services(app.state.settings, app.state.metrics)
    app.state.services = services
    stop = threading.Event()
    reconciler = threading.Thread(
        target=run_reconciler,
        args=(services.engine, services.settings, stop, services.metrics.observe_pass),
        name="reconciler",
    )
    sender = threading.Thread(
        target=run_webhook_sender, args=(services.engine, services.settings, stop), name="webhooks"
    )
    # What it waits for may take minutes to fail, and may be broken off at any time.
    sweeper = threading.Thread(
        target=run_sweeper,
        args=(services.engine, services.objects, services.settings, stop),
        name="sweeper",
        daemon=True,
    )
    # More threads than connections would wait for one, and each other.
    anyio.to_thread.current_default_thread_limiter().total_tokens = CONNECTIONS
    for thread in (reconciler, sender, sweeper):
        thread.start()
    try:
        with closing_on_signal() as closing:
            app.state.closing = closing
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(services.watch.run(closing))
                yield
                closing.set()
    except ExceptionGroup:
        # The server would go on to answer requests, with nothing beside them and every probe satisfied.
        LOGGER.exception("what runs beside the requests has failed: the process ends")
        signal.raise_signal(signal.SIGTERM)
        raise
    finally:
        stop.set()
        for thread in (reconciler, sender):
            await asyncio.to_thread(thread.join)
        await asyncio.to_thread(sweeper.join, SWEEPER_ENDS_SECONDS)
        services.close()
