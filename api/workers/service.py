"""What the worker routes do, as plain blocking functions that run in the thread pool."""

from datetime import datetime, timedelta

from api.tenant_services import TenantServices
from api.workers.schemas import Worker, WorkerState
from store import workers
from store.database import server_now


def list_workers(services: TenantServices) -> list[Worker]:
    """List all workers by name."""
    with services.transaction() as session:
        silent_since = server_now(session) - timedelta(seconds=services.settings.lease_seconds)
        return [_describe(each, silent_since) for each in workers.list_workers(session)]


def _describe(found: workers.WorkerAtWork, silent_since: datetime) -> Worker:
    row = found.worker
    return Worker(
        name=row.name,
        host=row.host,
        queue=row.queue,
        release=row.release,
        device=row.device,
        device_count=row.device_count,
        memory_bytes=row.memory_bytes,
        state=_state(found, silent_since),
        job_ids=list(found.job_ids),
        other_jobs=found.other_jobs,
        started_at=row.started_at,
        last_heartbeat_at=row.beat_at,
    )


def _state(found: workers.WorkerAtWork, silent_since: datetime) -> WorkerState:
    if found.worker.beat_at < silent_since:
        return "silent"
    return "busy" if found.job_ids or found.other_jobs else "idle"
