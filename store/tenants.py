"""Tenants: made, listed and given quotas by operators."""

import re
from collections.abc import Mapping, Sequence

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from store.errors import InvalidInputError, NotFoundError
from store.models import Tenant

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_COLUMN_OF_QUOTA = {
    "queued_jobs": "queued_jobs",
    "running_jobs": "running_jobs",
    "bytes_stored": "max_bytes_stored",
    "captions_per_job": "captions_per_job",
}


def ensure_tenant(session: Session, tenant_id: str) -> bool:
    """Make a tenant unless there is one of that name, and return whether it was made."""
    if not _NAME.fullmatch(tenant_id):
        raise InvalidInputError(
            f"{tenant_id!r} cannot be a tenant's name: use up to 63 small letters, digits and hyphens.",
            field="tenant",
        )
    made = session.scalar(insert(Tenant).values(id=tenant_id).on_conflict_do_nothing().returning(Tenant.id))
    return made is not None


def get_tenant(session: Session, tenant_id: str) -> Tenant:
    """Read a tenant; `NotFoundError` when there is none of that name."""
    tenant = session.scalars(select(Tenant).where(Tenant.id == tenant_id)).one_or_none()
    if tenant is None:
        raise NotFoundError(f"There is no tenant {tenant_id}.")
    return tenant


def list_tenants(session: Session) -> Sequence[Tenant]:
    """List all tenants by name."""
    return session.scalars(select(Tenant).order_by(Tenant.id)).all()


def set_quotas(session: Session, tenant_id: str, limits: Mapping[str, int | None]) -> None:
    """Give a tenant limits of its own.

    Parameters
    ----------
    session
        An open transaction.
    tenant_id
        The tenant.
    limits
        By the names of `store.quotas.Quotas`; None for the installation's default. Others stay as they are.
    """
    tenant = get_tenant(session, tenant_id)
    for name, limit in limits.items():
        setattr(tenant, _COLUMN_OF_QUOTA[name], limit)
