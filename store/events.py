"""The history of a job as numbered events.

Sequences are handed out by the update that locks the job's row, so they have no gap and become visible in
order: a reader that asks for "after n" misses nothing. Events are only added, never changed.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import insert, literal, select
from sqlalchemy.orm import Session

from store.database import Page
from store.endings import Ending
from store.models import QUIET_EVENTS, TERMINAL_STATUSES, Job, JobEvent, JobTransition
from store.webhook_deliveries import enqueue_deliveries

STATUS_EVENT = "status"
CANCEL_REQUESTED_EVENT = "cancel_requested"
PAUSE_REQUESTED_EVENT = "pause_requested"
PAUSE_WITHDRAWN_EVENT = "pause_withdrawn"
SAVE_REQUESTED_EVENT = "save_requested"
SAMPLE_REQUESTED_EVENT = "sample_requested"
WARNING_EVENT = "warning"

IS_TOLD = JobEvent.type.not_in([literal(quiet, literal_execute=True) for quiet in QUIET_EVENTS])
"""Condition on an event that it is not a quiet one.

It is written out in statements, not a parameter: so the planner knows that the index of such events will do,
and a job's page does not read a million numbers to find a few lines.
"""


@dataclass(frozen=True)
class NewEvent:
    """An event that has no number yet."""

    type: str
    data: dict[str, Any]


def insert_events(session: Session, job: Job, events: Sequence[NewEvent], *, now: datetime) -> None:
    """Write events under the numbers that the caller's update of the job has just reserved.

    Parameters
    ----------
    session
        The transaction that holds the lock on the job's row.
    job
        The job after the update: the events get the numbers up to its ``last_sequence``.
    events
        In order.
    now
        Time of all of them, unless the job was changed later: times follow the numbers.
    """
    if not events:
        return
    first = job.last_sequence - len(events) + 1
    rows = [
        {
            "job_id": job.id,
            "sequence": first + index,
            "attempt": job.attempt,
            "at": max(job.updated_at, now),
            "type": event.type,
            "data": event.data,
        }
        for index, event in enumerate(events)
    ]
    session.execute(insert(JobEvent), rows)


def note_event(session: Session, job: Job, event: NewEvent, *, now: datetime) -> None:
    """Write an event, and with it what the caller has changed on the job, whose row it has locked."""
    job.last_sequence += 1
    job.updated_at = max(job.updated_at, now)
    session.flush()
    insert_events(session, job, [event], now=now)


def record_move(session: Session, job: Job, ending: Ending, *, now: datetime) -> None:
    """Write the transition to the job's new status and the event that tells of it, under one number.

    The webhooks that want to know of it get their messages in the same transaction.
    """
    session.execute(
        insert(JobTransition),
        {
            "job_id": job.id,
            "sequence": job.last_sequence,
            "status": job.status,
            "reason": ending.reason,
            "attempt": job.attempt,
            "at": max(job.updated_at, now),
        },
    )
    told = {"status": job.status, "attempt": job.attempt, **asdict(ending)}
    insert_events(session, job, [NewEvent(STATUS_EVENT, told)], now=now)
    enqueue_deliveries(session, job, told, now=now)


def list_events(session: Session, job_id: str, *, after: int = 0, limit: int = 100) -> Page[JobEvent]:
    """List a job's events with a sequence above ``after``, in order."""
    rows = list(
        session.scalars(
            select(JobEvent)
            .where(JobEvent.job_id == job_id, JobEvent.sequence > after)
            .order_by(JobEvent.sequence)
            .limit(limit + 1)
        )
    )
    return Page.cut(rows, limit, lambda event: str(event.sequence))


def list_latest_events(
    session: Session, job_id: str, *, limit: int, types: Sequence[str] = ()
) -> list[JobEvent]:
    """List the last of a job's events, in order, without the quiet ones.

    Parameters
    ----------
    session
        An open transaction.
    job_id
        The job.
    limit
        Most events to return.
    types
        Only events of these types; of all by default.
    """
    query = select(JobEvent).where(JobEvent.job_id == job_id, IS_TOLD)
    if types:
        query = query.where(JobEvent.type.in_(types))
    return list(session.scalars(query.order_by(JobEvent.sequence.desc()).limit(limit)))[::-1]


def ends_the_job(event: JobEvent) -> bool:
    """Tell whether this event ended the job; only a retry can be followed by further ones."""
    return event.type == STATUS_EVENT and event.data.get("status") in TERMINAL_STATUSES
