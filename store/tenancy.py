"""Keeps the tenants apart: a session that belongs to one sees no row of another.

Whoever acts for a user opens its transaction with the user's tenant (`store.database.transaction`). Every
SELECT, UPDATE and DELETE of such a session gets the tenant into its WHERE clause here, once for all queries,
so that none can forget it: rows with a tenant by their own column, rows that belong to a job by the job's.
Workers act under a lease and the reconciler for everybody; their sessions have no tenant and see all.

No session sees a job that is deleted, although its rows are there until they are removed (`store.deletion`).

Only statements over mapped classes are scoped. Textual SQL would not be, and there is none outside of tests.
"""

from collections.abc import Sequence
from functools import lru_cache

from sqlalchemy import event, select
from sqlalchemy.orm import ORMExecuteState, Session, with_loader_criteria
from sqlalchemy.orm.interfaces import ORMOption

from store.models import DEFAULT_TENANT_ID, Job, OfJob, OfTenant, Tenant

_INFO_KEY = "tenant_id"
COUNTS_DELETED = "counts_deleted"
"""Execution option of a statement that finds deleted jobs, too, as one that counts jobs in an index alone."""
_NOT_DELETED = with_loader_criteria(Job, Job.deleted_at.is_(None), include_aliases=True)


class TenantSession(Session):
    """A session that may belong to a tenant.

    Parameters
    ----------
    bind
        The pool of connections.
    tenant_id
        Whose rows it sees; None for all.
    """

    def __init__(self, bind: object, *, tenant_id: str | None) -> None:
        # Objects stay readable after the commit.
        super().__init__(bind, expire_on_commit=False, info={_INFO_KEY: tenant_id})  # type: ignore[arg-type]


def tenant_of(session: Session) -> str:
    """Give the id of the tenant that rows made in a session belong to."""
    tenant_id: str | None = session.info.get(_INFO_KEY)
    return DEFAULT_TENANT_ID if tenant_id is None else tenant_id


@event.listens_for(TenantSession, "do_orm_execute")
def _scope(state: ORMExecuteState) -> None:
    tenant_id: str | None = state.session.info[_INFO_KEY]
    # Loads of relations inherit the options of the query that they belong to.
    inherits = state.is_column_load or state.is_relationship_load
    if state.is_orm_statement and not state.is_insert and not inherits:
        criteria = () if tenant_id is None else _criteria(tenant_id)
        not_deleted = () if state.execution_options.get(COUNTS_DELETED) else (_NOT_DELETED,)
        state.statement = state.statement.options(*criteria, *not_deleted)


@lru_cache(maxsize=1_024)
def _criteria(tenant_id: str) -> Sequence[ORMOption]:
    own_jobs = select(Job.id).where(Job.tenant_id == tenant_id, Job.deleted_at.is_(None))
    return (
        with_loader_criteria(Tenant, Tenant.id == tenant_id, include_aliases=True),
        with_loader_criteria(OfTenant, lambda table: table.tenant_id == tenant_id, include_aliases=True),
        with_loader_criteria(OfJob, lambda table: table.job_id.in_(own_jobs), include_aliases=True),
    )
