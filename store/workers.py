"""The workers of the installation, those that train and those that draw, as they tell of themselves.

A worker writes its row when it starts, renews it with every beat and removes it when it ends in order. One
that was killed falls silent, and its row goes a day later. Nothing is decided by these rows: a job is lost by
its lease, whatever its worker says. They are for people who want to know what there is and what it does, and
whether anybody could draw (`store.interactive_capacity`).

Workers belong to no tenant and everybody sees them. What one runs is named to the job's own tenant alone and
counted for all others.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta

from sqlalchemy import delete, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from store.models import Job, Worker, WorkerRole

SILENT_ARE_FORGOTTEN = timedelta(days=1)


@dataclass(frozen=True)
class Announcement:
    """What a worker says of itself.

    Attributes
    ----------
    name
        As it claims jobs or generations.
    role
        What it does.
    queue
        Whose jobs it takes.
    release
        Of the software that it runs.
    device, device_count, memory_bytes
        What it trains on: accelerators of one kind and the memory of one of them, or the processor, its cores
        and the host's memory. The memory is None where it cannot be told.
    """

    name: str
    role: WorkerRole
    host: str
    queue: str
    release: str
    device: str
    device_count: int
    memory_bytes: int | None


@dataclass(frozen=True)
class WorkerAtWork:
    """A worker, and what it runs.

    Attributes
    ----------
    job_ids
        Running jobs of the session's tenant, or of all where it has none.
    other_jobs
        How many more it runs, for other tenants.
    """

    worker: Worker
    job_ids: Sequence[str]
    other_jobs: int


def announce(session: Session, told: Announcement, *, started_at: datetime, now: datetime) -> None:
    """Write what a worker says of itself, as a sign of life."""
    statement = insert(Worker).values(**asdict(told), started_at=started_at, beat_at=now)
    changed = {name: statement.excluded[name] for name in (*asdict(told), "started_at", "beat_at")}
    session.execute(statement.on_conflict_do_update(index_elements=[Worker.name], set_=changed))


def sign_off(session: Session, name: str) -> None:
    """Remove the row of a worker that ends."""
    session.execute(delete(Worker).where(Worker.name == name))


def forget_silent_workers(session: Session, *, now: datetime) -> None:
    """Remove the rows of workers that have been silent for a day."""
    session.execute(delete(Worker).where(Worker.beat_at < now - SILENT_ARE_FORGOTTEN))


def list_workers(session: Session) -> list[WorkerAtWork]:
    """List the workers that train by name, each with what it runs."""
    workers = session.scalars(select(Worker).where(Worker.role == "training").order_by(Worker.name)).all()
    named: dict[str | None, list[str]] = defaultdict(list)
    running = select(Job.worker, Job.id).where(Job.status == "running").order_by(Job.id)
    for name, job_id in session.execute(running):
        named[name].append(job_id)
    # Counted over the bare table, which no session is scoped to (`store.tenancy`): that a worker has a job,
    # of whomever, is what everybody may know, and no more than the number leaves this query.
    table = Job.__table__
    counted = select(table.c.worker, func.count()).where(table.c.status == "running").group_by(table.c.worker)
    counts = {name: int(count) for name, count in session.execute(counted)}
    return [
        WorkerAtWork(worker, named[worker.name], max(counts.get(worker.name, 0) - len(named[worker.name]), 0))
        for worker in workers
    ]
