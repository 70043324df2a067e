"""Tenants: made and listed by operators."""

import re
from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from store.errors import InvalidInputError, NotFoundError
from store.models import Tenant

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")


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
