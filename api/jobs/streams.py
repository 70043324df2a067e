"""A job's history as server-sent events.

A stream begins after the event that the client saw last, so a client that reconnects misses none and gets
none twice. It ends with the event that ends the job, after ten minutes, or when the service stops.

References
----------
HTML Living Standard, section 9.2, "Server-sent events".
"""

import asyncio
import logging
from collections.abc import AsyncIterator

from fastapi.sse import KEEPALIVE_COMMENT, format_sse_event
from starlette.concurrency import run_in_threadpool

from api.jobs import service
from api.jobs.schemas import JobEvent
from api.tenant_services import TenantServices
from store.errors import NotFoundError, UnavailableError

LOGGER = logging.getLogger(__name__)

RECONNECT_MILLISECONDS = 1_000
EVENTS_PER_READ = 200


async def stream_events(services: TenantServices, job_id: str, after: int) -> AsyncIterator[bytes]:
    """Yield the events after a sequence number, and every later one as it happens.

    Parameters
    ----------
    services
        The application's services.
    job_id
        An existing job.
    after
        Sequence number of the last event that the client has.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + services.settings.stream_seconds
    yield format_sse_event(retry=RECONNECT_MILLISECONDS)
    while True:
        try:
            batch = await run_in_threadpool(
                service.read_events, services, job_id, after=after, limit=EVENTS_PER_READ
            )
        except UnavailableError as error:
            LOGGER.warning("the stream of job %s ends, its client will reconnect: %s", job_id, error)
            return
        except NotFoundError:  # the job was deleted, as a client that reconnects is told
            return
        for event in batch.events:
            yield _encode(event)
            after = event.sequence
        if batch.is_last:
            return
        changed = batch.has_more
        while not changed:
            remaining = deadline - loop.time()
            if remaining <= 0 or services.watch.closed:
                return
            pause = min(remaining, services.settings.ping_seconds)
            changed = await services.watch.changed(job_id, after, timeout_seconds=pause)
            if not changed:
                yield KEEPALIVE_COMMENT


def _encode(event: JobEvent) -> bytes:
    return format_sse_event(id=str(event.sequence), event=event.type, data_str=event.model_dump_json())
