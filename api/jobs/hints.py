"""Rings the queue's bell for a new job, after its transaction has committed and the client has its answer."""

import logging

from api.jobs.schemas import Job
from store.errors import UnavailableError
from store.queue import send_job_hint
from store.settings import Settings

LOGGER = logging.getLogger(__name__)


def send(settings: Settings, job: Job) -> None:
    """Tell the workers; a broker that is down is logged only, for the reconciler tells them again."""
    try:
        send_job_hint(settings, job.id, job.queue)
    except UnavailableError as error:
        LOGGER.warning("the workers were not told of job %s, the reconciler will: %s", job.id, error)
