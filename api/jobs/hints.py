"""Rings the queue's bell for a new job, after its transaction has committed and the client has its answer."""

import logging

from api.jobs.schemas import Job
from api.tenant_services import TenantServices
from store.errors import UnavailableError
from store.queue import send_job_hint

LOGGER = logging.getLogger(__name__)


async def send(services: TenantServices, job: Job) -> None:
    """Tell the workers; a broker that does not answer is logged only, for the reconciler tells them again."""
    try:
        await services.broker_threads.run(send_job_hint, services.settings, job.id, job.queue)
    except UnavailableError as error:
        LOGGER.warning("the workers were not told of job %s, the reconciler will: %s", job.id, error)
