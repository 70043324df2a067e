"""Tenants: made, listed and given quotas by operators."""

import re
from collections.abc import Mapping, Sequence
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from store.errors import InvalidInputError, NotFoundError
from store.ids import new_id
from store.models import Tenant

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_COLUMN_OF_QUOTA = {
    "queued_jobs": "queued_jobs",
    "running_jobs": "running_jobs",
    "bytes_stored": "max_bytes_stored",
    "captions_per_job": "captions_per_job",
    "open_generations": "open_generations",
}


def ensure_tenant(session: Session, name: str, *, now: datetime) -> str:
    """Make a tenant unless there is one of that name, and return its id."""
    if not _NAME.fullmatch(name):
        raise InvalidInputError(
            f"{name!r} cannot be a tenant's name: use up to 63 small letters, digits and hyphens.",
            field="tenant",
        )
    new = insert(Tenant).values(id=new_id(now), name=name, created_at=now)
    session.execute(new.on_conflict_do_nothing(index_elements=[Tenant.name]))
    return get_tenant(session, name).id


def get_tenant(session: Session, name: str) -> Tenant:
    """Read a tenant; `NotFoundError` when there is none of that name."""
    tenant = session.scalars(select(Tenant).where(Tenant.name == name)).one_or_none()
    if tenant is None:
        raise NotFoundError(f"There is no tenant {name}.")
    return tenant


def list_tenants(session: Session) -> Sequence[Tenant]:
    """List all tenants by name."""
    return session.scalars(select(Tenant).order_by(Tenant.name)).all()


def set_quotas(session: Session, name: str, limits: Mapping[str, int | None]) -> None:
    """Give a tenant limits of its own.

    Parameters
    ----------
    session
        An open transaction.
    name
        The tenant's.
    limits
        By the names of `store.quotas.Quotas`; None for the installation's default. Others stay as they are.
    """
    tenant = get_tenant(session, name)
    for quota, limit in limits.items():
        setattr(tenant, _COLUMN_OF_QUOTA[quota], limit)
