"""Which workers draw generations at present, as far as they were heard of."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from sqlalchemy import delete, exists, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from store.models import Generation, InteractiveWorker

WaitingReason = Literal["no_worker", "workers_busy"]

FORGOTTEN_AFTER = timedelta(days=1)


@dataclass(frozen=True)
class InteractiveCapacity:
    """How many workers were heard of lately, how many of them draw, and when one was last heard of."""

    workers: int
    busy: int
    last_seen_at: datetime | None

    @property
    def waiting_reason(self) -> WaitingReason | None:
        """Why a generation that waits is not drawn at once; None when it is about to be."""
        if not self.workers:
            return "no_worker"
        return "workers_busy" if self.busy >= self.workers else None


def announce_worker(session: Session, *, name: str, now: datetime) -> None:
    """Note that a worker is there."""
    session.execute(
        insert(InteractiveWorker)
        .values(name=name, seen_at=now)
        .on_conflict_do_update(index_elements=[InteractiveWorker.name], set_={"seen_at": now})
    )


def withdraw_worker(session: Session, *, name: str) -> None:
    """Note that a worker has ended."""
    session.execute(delete(InteractiveWorker).where(InteractiveWorker.name == name))


def forget_silent_interactive_workers(session: Session, *, now: datetime) -> None:
    """Strike off the workers that were not heard of for long."""
    session.execute(delete(InteractiveWorker).where(InteractiveWorker.seen_at < now - FORGOTTEN_AFTER))


def interactive_capacity(session: Session, *, now: datetime, lease_seconds: float) -> InteractiveCapacity:
    """Count the workers.

    The counts are of all tenants' work, which is why this asks for tables without their rows' owners.

    Parameters
    ----------
    session
        An open transaction.
    now, lease_seconds
        Whoever was silent for so long until now is taken to be gone.
    """
    live = InteractiveWorker.seen_at > now - timedelta(seconds=lease_seconds)
    generations = Generation.__table__  # as a table: a tenant's session would see its own rows only
    draws = exists().where(generations.c.worker == InteractiveWorker.name, generations.c.status == "running")
    row = session.execute(
        select(
            func.count().filter(live).label("workers"),
            func.count().filter(live, draws).label("busy"),
            func.max(InteractiveWorker.seen_at).label("seen_at"),
        )
    ).one()
    return InteractiveCapacity(row.workers, row.busy, row.seen_at)
