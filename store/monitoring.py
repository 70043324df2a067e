"""What an operator watches of the job table.

It is asked again and again, so it must stay cheap however many jobs have ended: jobs that wait or run are
found by the index of statuses, and those that have ended are counted in it without being read.
"""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import case, extract, func, select
from sqlalchemy.orm import Session

from store.job_queries import is_due
from store.models import STATUSES, TERMINAL_STATUSES, Job, Status
from store.tenancy import COUNTS_DELETED


@dataclass(frozen=True)
class LiveJobs:
    """Jobs of one queue and status that have not ended.

    Attributes
    ----------
    due
        How many of them a worker may take at once; none of those that are not queued.
    oldest_seconds
        How long the oldest has had its status; of queued jobs, the oldest that is due.
    """

    queue: str
    status: Status
    count: int
    due: int
    oldest_seconds: float


@dataclass(frozen=True)
class Snapshot:
    """The job table at one moment.

    Attributes
    ----------
    live
        Jobs that have not ended.
    ended
        How many jobs have ended in each status.
    beat_seconds
        How long ago each worker that has a job gave its last sign of life.
    """

    live: list[LiveJobs]
    ended: dict[Status, int]
    beat_seconds: dict[str, float]


def read_snapshot(session: Session, *, now: datetime, lease_seconds: float) -> Snapshot:
    """Read what there is to watch.

    Parameters
    ----------
    session
        An open transaction.
    now
        Ages are counted up to here.
    lease_seconds
        What a heartbeat extends a lease by, from which the time of the last one follows.
    """
    is_takeable = (Job.status == "queued") & is_due(now)
    has_aged = is_takeable | (Job.status != "queued")
    seconds = extract("epoch", now - func.coalesce(Job.claimed_at, Job.updated_at))
    live = session.execute(
        select(
            Job.queue,
            Job.status,
            func.count().label("jobs"),
            func.count().filter(is_takeable).label("due"),
            func.max(case((has_aged, seconds))).label("oldest"),
        )
        .where(Job.status.in_([status for status in STATUSES if status not in TERMINAL_STATUSES]))
        .group_by(Job.queue, Job.status)
    )
    ended = session.execute(
        select(Job.status, func.count().label("jobs"))
        .where(Job.status.in_(TERMINAL_STATUSES))
        .group_by(Job.status)
        .execution_options(**{COUNTS_DELETED: True})
    )
    silence = extract("epoch", now - Job.lease_expires_at) + lease_seconds
    beats = session.execute(
        select(Job.worker, func.max(silence).label("seconds"))
        .where(Job.status == "running")
        .group_by(Job.worker)
    )
    return Snapshot(
        live=[
            LiveJobs(row.queue, row.status, row.jobs, row.due, max(float(row.oldest or 0), 0.0))
            for row in live
        ],
        ended={row.status: row.jobs for row in ended},
        beat_seconds={row.worker: max(float(row.seconds), 0.0) for row in beats},
    )
