"""When the phases of a job began and ended, read from its history."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from store.events import IS_TOLD, STATUS_EVENT
from store.models import JobEvent, Phase

PHASE_EVENT = "phase"


@dataclass(frozen=True)
class PhaseSpan:
    """One phase of one attempt; ``ended`` is None while it lasts."""

    phase: Phase
    attempt: int
    began: datetime
    ended: datetime | None

    @property
    def seconds(self) -> float | None:
        """How long it took."""
        return None if self.ended is None else (self.ended - self.began).total_seconds()


def list_phases(session: Session, job_id: str) -> list[PhaseSpan]:
    """List the phases that a job has been through, in order; a phase that was taken up again is there twice.

    A phase lasts up to the next one, or up to the job's next move.
    """
    events = session.scalars(
        select(JobEvent)
        .where(JobEvent.job_id == job_id, IS_TOLD, JobEvent.type.in_((PHASE_EVENT, STATUS_EVENT)))
        .order_by(JobEvent.sequence)
    )
    spans: list[PhaseSpan] = []
    begun: JobEvent | None = None
    for event in events:
        if begun is not None:
            spans.append(PhaseSpan(begun.data["phase"], begun.attempt, begun.at, event.at))
        begun = event if event.type == PHASE_EVENT else None
    if begun is not None:
        spans.append(PhaseSpan(begun.data["phase"], begun.attempt, begun.at, None))
    return spans
