"""What an operator watches of the job table.

It is asked again and again, so it must stay cheap however many jobs have ended: jobs that wait or run are
found by the index of statuses, and those that have ended are counted in it without being read.
"""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import extract, func, select
from sqlalchemy.orm import Session

from store.job_queries import is_due
from store.models import STATUSES, TERMINAL_STATUSES, Job, Status, Tenant
from store.quotas import NO_LIMITS, Quotas, is_below_running_limit, of_them_may_run
from store.tenancy import COUNTS_DELETED


@dataclass(frozen=True)
class LiveJobs:
    """Jobs of one queue and status that have not ended.

    Attributes
    ----------
    due
        How many of them workers may take at once, were there enough; none of those that are not queued.
    oldest_seconds
        How long the oldest has had its status; of queued jobs, the oldest that is due and whose tenant may
        run another.
    """

    queue: str
    status: Status
    count: int
    due: int
    oldest_seconds: float


@dataclass(frozen=True)
class Snapshot:
    """The job table at one moment.

    Attributes
    ----------
    live
        Jobs that have not ended.
    ended
        How many jobs have ended in each status.
    beat_seconds
        How long ago each worker that has a job gave its last sign of life.
    """

    live: list[LiveJobs]
    ended: dict[Status, int]
    beat_seconds: dict[str, float]


def read_snapshot(
    session: Session, *, now: datetime, lease_seconds: float, quotas: Quotas = NO_LIMITS
) -> Snapshot:
    """Read what there is to watch.

    Parameters
    ----------
    session
        An open transaction.
    now
        Ages are counted up to here.
    lease_seconds
        What a heartbeat extends a lease by, from which the time of the last one follows.
    quotas
        Limits of tenants that have none of their own: a job that its tenant may not run yet calls for no
        worker.
    """
    seconds = extract("epoch", now - func.coalesce(Job.claimed_at, Job.updated_at))
    live = session.execute(
        select(Job.queue, Job.status, func.count().label("jobs"), func.max(seconds).label("oldest"))
        .where(Job.status.in_([status for status in STATUSES if status not in TERMINAL_STATUSES]))
        .group_by(Job.queue, Job.status)
    )
    waiting = _read_waiting(session, now, quotas)
    ended = session.execute(
        select(Job.status, func.count().label("jobs"))
        .where(Job.status.in_(TERMINAL_STATUSES))
        .group_by(Job.status)
        .execution_options(**{COUNTS_DELETED: True})
    )
    silence = extract("epoch", now - Job.lease_expires_at) + lease_seconds
    beats = session.execute(
        select(Job.worker, func.max(silence).label("seconds"))
        .where(Job.status == "running")
        .group_by(Job.worker)
    )
    return Snapshot(
        live=[
            LiveJobs(row.queue, row.status, row.jobs, due, max(float(oldest), 0.0))
            for row in live
            for due, oldest in [waiting.get(row.queue, (0, 0)) if row.status == "queued" else (0, row.oldest)]
        ],
        ended={row.status: row.jobs for row in ended},
        beat_seconds={row.worker: max(float(row.seconds), 0.0) for row in beats},
    )


def _read_waiting(session: Session, now: datetime, quotas: Quotas) -> dict[str, tuple[int, float]]:
    """Count by queue the jobs that a worker may take at once, and the seconds that the oldest has waited."""
    waits_since = func.greatest(Job.updated_at, Job.not_before)  # a NULL does not count
    of_tenant = (
        select(
            Job.queue,
            Job.tenant_id,
            func.count().label("jobs"),
            func.max(extract("epoch", now - waits_since)).label("oldest"),
        )
        .where(Job.status == "queued", is_due(now))
        .group_by(Job.queue, Job.tenant_id)
        .subquery()
    )
    due = of_them_may_run(of_tenant.c.jobs, quotas)
    waiting = session.execute(
        select(of_tenant.c.queue, func.sum(due).label("due"), func.max(of_tenant.c.oldest).label("oldest"))
        .join(Tenant, Tenant.id == of_tenant.c.tenant_id)
        .where(is_below_running_limit(quotas))
        .group_by(of_tenant.c.queue)
    )
    return {row.queue: (int(row.due), float(row.oldest)) for row in waiting}
