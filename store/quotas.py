"""How much a tenant may have: the installation's defaults, and what the tenant's own row says instead.

Queued jobs, stored bytes and captions are checked when a job is submitted, the number of running jobs when a
worker takes one (`store.turns.claim_next`). The tenant's row is locked meanwhile, so that requests at the
same time cannot pass a limit together.
"""

from dataclasses import dataclass

from sqlalchemy import ColumnElement, Integer, ScalarSelect, Select, func, literal, or_, select
from sqlalchemy.orm import Session

from core.spec import (
    CaptionSource,
    FileCaptions,
    HubCaptions,
    InlineCaptions,
    S3Captions,
    UploadedCaptions,
)
from store.errors import QuotaExceededError
from store.models import Job, Tenant
from store.settings import Settings
from store.tenancy import COUNTS_DELETED, tenant_of


@dataclass(frozen=True)
class Quotas:
    """Limits of a tenant; None for no limit."""

    queued_jobs: int | None = None
    running_jobs: int | None = None
    bytes_stored: int | None = None
    captions_per_job: int | None = None
    open_generations: int | None = None

    @classmethod
    def by_default(cls, settings: Settings) -> "Quotas":
        """Give the limits of tenants that have none of their own."""
        return cls(
            queued_jobs=settings.quota_queued_jobs,
            running_jobs=settings.quota_running_jobs,
            bytes_stored=settings.quota_bytes_stored,
            captions_per_job=settings.quota_captions_per_job,
            open_generations=settings.quota_open_generations,
        )

    def of(self, tenant: Tenant) -> "Quotas":
        """Give the limits of a tenant, with these as defaults."""

        def first(own: int | None, default: int | None) -> int | None:
            return default if own is None else own

        return Quotas(
            queued_jobs=first(tenant.queued_jobs, self.queued_jobs),
            running_jobs=first(tenant.running_jobs, self.running_jobs),
            bytes_stored=first(tenant.max_bytes_stored, self.bytes_stored),
            captions_per_job=first(tenant.captions_per_job, self.captions_per_job),
            open_generations=first(tenant.open_generations, self.open_generations),
        )


NO_LIMITS = Quotas()


def check_submission(session: Session, job: Job, captions: CaptionSource, defaults: Quotas) -> None:
    """Refuse a job that its tenant may not submit, after it was written.

    Submissions of a tenant wait for each other from here to their commits. So what is to be written is
    written before: with every statement after this one fewer jobs a second can be submitted.

    Parameters
    ----------
    session
        The transaction that wrote the job; it holds the tenant's row from here on.
    job
        It does not count.
    captions
        The job's.
    defaults
        Limits of tenants that have none of their own.

    Raises
    ------
    QuotaExceededError
        It names the limit and the present value.
    """
    tenant = lock_tenant(session, tenant_of(session))
    quotas = defaults.of(tenant)
    if quotas.captions_per_job is not None:
        _check_captions(captions, quotas.captions_per_job)
    if quotas.queued_jobs is not None:
        _check_queue(session, job, tenant, quotas.queued_jobs)
    _check_room(tenant, quotas, wanted=1)


def check_upload(session: Session, tenant_id: str, size: int, defaults: Quotas) -> None:
    """Refuse so many bytes more than a tenant may store; its row is held from here on."""
    tenant = lock_tenant(session, tenant_id)
    _check_room(tenant, defaults.of(tenant), wanted=size)


def check_return(session: Session, job: Job, defaults: Quotas) -> None:
    """Refuse a job that came back into the queue, if its tenant has as many there as it may.

    As with `check_submission` the job itself does not count, and the tenant's row is held from here on.
    """
    tenant = lock_tenant(session, job.tenant_id)
    limit = defaults.of(tenant).queued_jobs
    if limit is not None:
        _check_queue(session, job, tenant, limit)


def _check_room(tenant: Tenant, quotas: Quotas, *, wanted: int) -> None:
    if quotas.bytes_stored is not None and tenant.bytes_stored + wanted > quotas.bytes_stored:
        raise QuotaExceededError(
            f"Tenant {tenant.name} stores {tenant.bytes_stored} bytes, and may store {quotas.bytes_stored}: "
            f"there is no room for {wanted} more. Delete jobs and caption files that are not needed.",
            quota="bytes_stored",
            limit=quotas.bytes_stored,
            present=tenant.bytes_stored,
        )


def _check_queue(session: Session, job: Job, tenant: Tenant, limit: int) -> None:
    others = _count(Job.tenant_id == tenant.id, Job.status == "queued", Job.id != job.id)
    # No deleted job is queued.
    queued = session.scalar(others.execution_options(**{COUNTS_DELETED: True})) or 0
    if queued >= limit:
        raise QuotaExceededError(
            f"{queued} jobs of tenant {tenant.name} are queued, and {limit} may be. "
            "Wait until one runs, or cancel one.",
            quota="queued_jobs",
            limit=limit,
            present=queued,
        )


def _check_captions(captions: CaptionSource, limit: int) -> None:
    """Refuse more captions than allowed; of a source that does not say how many it has, a limit is wanted."""
    if isinstance(captions, InlineCaptions) and len(captions.texts) > limit:
        raise QuotaExceededError(
            f"The job has {len(captions.texts)} captions, and one job may have {limit}.",
            quota="captions_per_job",
            limit=limit,
            present=len(captions.texts),
            field="captions.texts",
        )
    if isinstance(captions, FileCaptions | UploadedCaptions | S3Captions | HubCaptions) and (
        captions.limit is None or captions.limit > limit
    ):
        asked = "all captions of its source" if captions.limit is None else f"{captions.limit} captions"
        raise QuotaExceededError(
            f"The job asks for {asked}, and one job may have {limit}: set captions.limit.",
            quota="captions_per_job",
            limit=limit,
            present=captions.limit,
            field="captions.limit",
        )


def may_run_more(session: Session, tenant: Tenant, defaults: Quotas) -> bool:
    """Tell whether another job of a tenant may run, whose row the caller has locked."""
    limit = defaults.of(tenant).running_jobs
    if limit is None:
        return True
    running = session.scalar(_count(Job.tenant_id == tenant.id, Job.status == "running")) or 0
    return running < limit


def running_jobs_of_tenant() -> ScalarSelect[int]:
    """Number of running jobs of the tenant of the enclosing query."""
    return _count(Job.tenant_id == Tenant.id, Job.status == "running").correlate(Tenant).scalar_subquery()


def is_below_running_limit(defaults: Quotas) -> ColumnElement[bool]:
    """Condition on a tenant that a further job of it may run."""
    limit = _running_limit(defaults)
    return or_(limit.is_(None), running_jobs_of_tenant() < limit)


def of_them_may_run(waiting: ColumnElement[int], defaults: Quotas) -> ColumnElement[int]:
    """Say how many of so many jobs of a tenant that wait may run beside those that do."""
    room = _running_limit(defaults) - running_jobs_of_tenant()
    return func.greatest(func.least(waiting, room), 0)  # a NULL, for no limit, does not count in them


def _running_limit(defaults: Quotas) -> ColumnElement[int | None]:
    return func.coalesce(Tenant.running_jobs, literal(defaults.running_jobs, Integer))


def may_start(defaults: Quotas) -> ColumnElement[bool]:
    """Condition on a job that its tenant may have a further one running."""
    return Job.tenant_id.in_(select(Tenant.id).where(is_below_running_limit(defaults)))


def lock_tenant(session: Session, tenant_id: str) -> Tenant:
    """Lock a tenant's row against everybody who counts; rows that refer to it can still be written."""
    return session.scalars(_locked(tenant_id, skip_locked=False)).one()


def try_lock_tenant(session: Session, tenant_id: str) -> Tenant | None:
    """Lock a tenant's row unless somebody else has it."""
    return session.scalars(_locked(tenant_id, skip_locked=True)).one_or_none()


def _locked(tenant_id: str, *, skip_locked: bool) -> Select[Tenant]:
    return (
        select(Tenant)
        .where(Tenant.id == tenant_id)
        .with_for_update(key_share=True, skip_locked=skip_locked)
        .execution_options(populate_existing=True)
    )


def _count(*conditions: ColumnElement[bool]) -> Select[int]:
    return select(func.count(Job.id)).where(*conditions)
