"""How many bytes the files of a tenant take, of its jobs and its captions, counted as files come and go.

Adding up would take long with many files, so the tenant's row keeps the sum. The release before this one does
not keep it, hence it is added up anew once in a while.
"""

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from store.database import Engine, transaction
from store.models import Artifact, CaptionFile, Job, Tenant
from store.quotas import lock_tenant


def count_bytes(session: Session, tenant_id: str, change: int) -> None:
    """Add to a tenant's sum, or take away from it.

    Whoever calls it holds the lock on the job whose files these are, or on the caption file; nobody waits for
    one of these while holding a tenant, so that neither can wait for the other.
    """
    if change:
        session.execute(
            update(Tenant)
            .where(Tenant.id == tenant_id)
            .values(bytes_stored=func.greatest(Tenant.bytes_stored + change, 0))
            .execution_options(synchronize_session=False)
        )


def bytes_of_job(session: Session, job_id: str) -> int:
    """Add up the sizes of a job's files."""
    return int(session.scalar(select(func.sum(Artifact.size)).where(Artifact.job_id == job_id)) or 0)


def recount_bytes(engine: Engine) -> None:
    """Make every tenant's sum right again.

    What is being counted at the same moment waits for the lock and is added afterwards: a file is either seen
    by the sum, which begins with the lock held, or counted after it.
    """
    with transaction(engine) as session:
        tenant_ids = session.scalars(select(Tenant.id)).all()
    for tenant_id in tenant_ids:
        with transaction(engine) as session:
            tenant = lock_tenant(session, tenant_id)
            tenant.bytes_stored = _bytes_of_jobs(session, tenant_id) + _bytes_of_captions(session, tenant_id)


def _bytes_of_jobs(session: Session, tenant_id: str) -> int:
    files = select(func.sum(Artifact.size)).join(Job, Job.id == Artifact.job_id)
    return int(session.scalar(files.where(Job.tenant_id == tenant_id)) or 0)


def _bytes_of_captions(session: Session, tenant_id: str) -> int:
    """Add up the objects of a tenant's caption files; files of the same content share one."""
    objects = select(CaptionFile.key, CaptionFile.size).where(CaptionFile.tenant_id == tenant_id).distinct()
    return int(session.scalar(select(func.sum(objects.subquery().c.size))) or 0)
