"""Removes the rows of a deleted job, in parts of which none takes long.

A long training leaves millions of them, more than one statement can delete in the time that it has.
`store.jobs.delete_job` only says that a job is deleted, from when on nobody sees it (`store.tenancy`). The
sweeper then removes what belongs to it, and its own row last: broken off at any point, it is simply done
again.
"""

from typing import Any

from sqlalchemy import Table, delete, select, true, tuple_

from store.database import Engine, transaction
from store.models import Artifact, Job, JobEvent, MetricPoint

ROWS_AT_ONCE = 10_000

# Statements on the tables themselves: those on the classes find no job that is deleted.
_JOBS: Table = Job.__table__  # type: ignore[assignment]  # declared as any kind of selectable
_PARTS: tuple[Table, ...] = tuple(table.__table__ for table in (MetricPoint, JobEvent, Artifact))  # type: ignore[misc]


def remove_rows(engine: Engine, job_id: str, *, rows_at_once: int = ROWS_AT_ONCE) -> None:
    """Remove all rows of a deleted job, each so many in a transaction of their own.

    A job that is not deleted, or of which nothing is left, stays as it is.
    """
    this = (_JOBS.c.id == job_id) & _JOBS.c.deleted_at.is_not(None)
    with transaction(engine) as session:
        if session.scalar(select(_JOBS.c.id).where(this)) is None:
            return
    for table in _PARTS:
        _remove_part_by_part(engine, table, job_id, rows_at_once)
    with transaction(engine) as session:
        session.execute(delete(_JOBS).where(this))


def _remove_part_by_part(engine: Engine, table: Table, job_id: str, rows_at_once: int) -> None:
    """Go through the rows by their key, so that no statement passes over what the ones before it deleted."""
    key = [column for column in table.primary_key if column.name != "job_id"]
    after: tuple[Any, ...] | None = None
    while True:
        rest = (table.c.job_id == job_id) & (true() if after is None else tuple_(*key) > tuple_(*after))
        last_of_part = select(*key).where(rest).order_by(*key).offset(rows_at_once - 1).limit(1)
        with transaction(engine) as session:
            row = session.execute(last_of_part).one_or_none()
            last = None if row is None else tuple(row)
            session.execute(
                delete(table).where(rest, true() if last is None else tuple_(*key) <= tuple_(*last))
            )
        if last is None:
            return
        after = last
