"""Whose turn it is: which of the waiting jobs a worker that asks for one is given."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import and_, exists, select
from sqlalchemy.orm import Session

from store.job_queries import is_due
from store.jobs import Claim, claim_job
from store.models import Job, Tenant
from store.quotas import (
    NO_LIMITS,
    Quotas,
    is_below_running_limit,
    lock_tenant,
    may_run_more,
    running_jobs_of_tenant,
    try_lock_tenant,
)


def claim_next(
    session: Session,
    *,
    queue: str,
    worker: str,
    now: datetime,
    lease_seconds: float,
    quotas: Quotas = NO_LIMITS,
    lesser: Sequence[str] = (),
) -> Claim | None:
    """Take the job whose turn it is, of the queues that a worker serves.

    First goes the tenant with the fewest running jobs, of several the one that was served longest ago; of its
    jobs the one of highest priority, then the oldest. So no tenant can hold up another, however many jobs it
    submits and however urgent it calls them. A tenant that may run no more is passed over, and so is a job
    that somebody else is about to take or to change.

    Parameters
    ----------
    session
        An open transaction.
    queue
        Jobs of this queue.
    lesser
        And of these, all as if they waited in one.
    worker
        Its name.
    now
        Time of the claim.
    lease_seconds
        For how long.
    quotas
        Limits of tenants that have none of their own.

    Returns
    -------
    Claim or None
        None when no job waits that may be taken.
    """
    waits = and_(Job.status == "queued", Job.queue.in_([queue, *lesser]), is_due(now))
    has_waiting = exists().where(Job.tenant_id == Tenant.id, waits).correlate(Tenant)
    tenant_ids = session.scalars(
        select(Tenant.id)
        .where(has_waiting, is_below_running_limit(quotas))
        .order_by(running_jobs_of_tenant(), Tenant.claimed_at.nulls_first(), Tenant.id)
    ).all()
    for position, tenant_id in enumerate(tenant_ids):
        # Nobody waits for one tenant while holding another.
        lock = lock_tenant if position == 0 else try_lock_tenant
        tenant = lock(session, tenant_id)
        if tenant is None or not may_run_more(session, tenant, quotas):
            continue
        job_id = session.scalar(
            select(Job.id)
            .where(Job.tenant_id == tenant_id, waits)
            .order_by(Job.priority.desc(), Job.id)
            .limit(1)
            .with_for_update(skip_locked=True)
        )
        if job_id is not None:
            tenant.claimed_at = now
            return claim_job(session, job_id=job_id, worker=worker, now=now, lease_seconds=lease_seconds)
    return None
