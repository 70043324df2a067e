"""Whether anybody could draw a generation at present, by the list of workers (`store.workers`)."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from sqlalchemy import exists, func, select
from sqlalchemy.orm import Session

from store.models import Generation, Worker

WaitingReason = Literal["no_worker", "workers_busy"]


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


def interactive_capacity(session: Session, *, now: datetime, lease_seconds: float) -> InteractiveCapacity:
    """Count the workers that draw.

    The counts are of all tenants' work, which is why this asks for tables without their rows' owners.

    Parameters
    ----------
    session
        An open transaction.
    now, lease_seconds
        Whoever was silent for so long until now is taken to be gone.
    """
    live = Worker.beat_at > now - timedelta(seconds=lease_seconds)
    generations = Generation.__table__  # as a table: a tenant's session would see its own rows only
    draws = exists().where(generations.c.worker == Worker.name, generations.c.status == "running")
    row = session.execute(
        select(
            func.count().filter(live).label("workers"),
            func.count().filter(live, draws).label("busy"),
            func.max(Worker.beat_at).label("seen_at"),
        ).where(Worker.role == "interactive")
    ).one()
    return InteractiveCapacity(row.workers, row.busy, row.seen_at)
