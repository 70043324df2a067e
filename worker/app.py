"""The worker of trainings: ``python -m celery -A worker.app worker``."""

import logging
from functools import lru_cache

from celery import signals

from store.objects import ObjectStore
from store.queue import RUN_JOB_TASK
from store.settings import Settings, get_settings
from worker import monitoring
from worker.celery_process import CeleryProcess
from worker.device import find_device
from worker.fitness import AcceleratorWatch, needs_accelerator
from worker.own_class import with_own_class
from worker.supervisor import Supervisor
from worker.trainer import core_command

logger = logging.getLogger(__name__)


process = CeleryProcess(
    "training",
    log_name="worker",
    find_device=find_device,
    choose_queues=lambda: [worker_settings().worker_queue, *worker_settings().lesser_queues],
    beat_seconds=get_settings().heartbeat_seconds,
)
app = process.app


@signals.worker_init.connect(weak=False)
def _serve_metrics(**_: object) -> None:
    monitoring.serve(get_settings())


def worker_settings() -> Settings:
    """Give the settings with this worker's own queue."""
    return with_own_class(get_settings(), process.device)


@lru_cache(maxsize=1)
def make_supervisor() -> Supervisor:
    """Make the supervisor of this process, once, when the first job arrives."""
    settings = worker_settings()
    is_needed = needs_accelerator(process.device)
    return Supervisor(
        engine=process.engine,
        objects=ObjectStore(settings),
        settings=settings,
        worker=process.name,
        command=core_command(settings, needs_accelerator=is_needed),
        find_lack=AcceleratorWatch(process.device).lack if is_needed else lambda: None,
    )


@app.task(name=RUN_JOB_TASK)
def run_job(job_id: str) -> None:
    """Work on the job whose turn it is, if any waits; the message names the one it was sent for."""
    outcome = make_supervisor().run(process.stopping)
    logger.info("hint of job %s: %s", job_id, outcome)
