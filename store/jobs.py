"""The state machine of a job; the only module that moves one from a status to another.

Every move is one guarded UPDATE … RETURNING that also reserves the number of the event which tells of it;
transition and event are written in the same transaction. A move that its guard refuses changes nothing.
Time, ids and lease tokens come in as arguments. The moves of a worker are guarded by its lease token, which
only grows, so a worker that was given up cannot change the job any more.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, func, select, true, update
from sqlalchemy.orm import Session, selectinload

from core.spec import DistillationSpec
from store.database import Page
from store.endings import CANCELLED, GOOD_END, WORKER_LOST, WORKER_STOPPED, Ending, trainer_crashed
from store.errors import (
    InvalidCursorError,
    JobFinishedError,
    LeaseLostError,
    NotFoundError,
)
from store.events import CANCEL_REQUESTED_EVENT, NewEvent, insert_events, record_move
from store.idempotency import IdempotencyKey, reserve
from store.ids import new_job_id, parse_job_id
from store.leases import lock_under_lease
from store.models import TERMINAL_STATUSES, Job, Status

ALLOWED_MOVES: Mapping[Status, frozenset[Status]] = {
    "queued": frozenset({"running", "cancelled"}),
    "running": frozenset({"queued", "succeeded", "failed", "cancelled"}),
    "succeeded": frozenset(),
    "failed": frozenset(),
    "cancelled": frozenset(),
}


@dataclass(frozen=True)
class Claim:
    """A worker's right to a job, until its lease ends."""

    job_id: str
    attempt: int
    lease_token: int
    spec: dict[str, Any]


def create_job(
    session: Session,
    *,
    spec: DistillationSpec,
    queue: str,
    now: datetime,
    idempotency: IdempotencyKey | None = None,
    job_id: str | None = None,
) -> Job:
    """Write a queued job with its first event.

    Parameters
    ----------
    session
        An open transaction; the job exists once it commits, and the caller may then ring the queue's bell.
    spec
        The validated specification.
    queue
        Celery queue, one per class of accelerator.
    now
        Time of creation.
    idempotency
        When its key was used before with the same request, that request's job is returned.
    job_id
        Id of the new job; made from ``now`` by default. A returned job with another id is a replay.

    Returns
    -------
    Job
        The job with its transitions.
    """
    job_id = job_id or new_job_id(now)
    if idempotency is not None:
        bound = reserve(session, idempotency, job_id=job_id, now=now)
        if bound != job_id:
            return get_job(session, bound)
    job = Job(
        id=job_id,
        status="queued",
        queue=queue,
        teacher=spec.teacher,
        spec=spec.model_dump(mode="json"),
        last_sequence=1,
        hinted_at=now,
        created_at=now,
        updated_at=now,
    )
    session.add(job)
    session.flush()
    record_move(session, job, GOOD_END, now=now)
    return get_job(session, job_id)


def get_job(session: Session, job_id: str, *, for_update: bool = False) -> Job:
    """Read a job with its transitions, and lock it if asked; `NotFoundError` when there is none."""
    query = select(Job).where(Job.id == parse_job_id(job_id)).options(selectinload(Job.transitions))
    if for_update:
        query = query.with_for_update(of=Job)
    job = session.scalars(query.execution_options(populate_existing=True)).one_or_none()
    if job is None:
        raise NotFoundError("There is no such job.")
    return job


def list_jobs(
    session: Session,
    *,
    after: str | None = None,
    limit: int = 20,
    status: Status | None = None,
    teacher: str | None = None,
) -> Page[Job]:
    """List jobs with their transitions, the newest first.

    Parameters
    ----------
    session
        An open transaction.
    after
        Cursor of the page before; new jobs never shift the pages that follow it.
    limit
        Most jobs to return.
    status, teacher
        Only jobs that have these.
    """
    query = select(Job).options(selectinload(Job.transitions)).order_by(Job.id.desc()).limit(limit + 1)
    if after is not None:
        try:
            query = query.where(Job.id < parse_job_id(after))
        except NotFoundError:
            raise InvalidCursorError("The cursor did not come from this service.", field="after") from None
    if status is not None:
        query = query.where(Job.status == status)
    if teacher is not None:
        query = query.where(Job.teacher == teacher)
    rows = list(session.scalars(query))
    items = rows[:limit]
    has_more = len(rows) > limit
    return Page(items=items, has_more=has_more, next=items[-1].id if has_more else None)


def claim_job(
    session: Session, *, job_id: str, worker: str, now: datetime, lease_seconds: float
) -> Claim | None:
    """Take a queued job (queued → running); None when it is not queued, for whatever reason."""
    job = _move(
        session,
        job_id,
        "queued",
        "running",
        now=now,
        values={
            "worker": worker,
            "attempt": Job.attempt + 1,
            "lease_token": Job.lease_token + 1,
            "lease_expires_at": now + timedelta(seconds=lease_seconds),
            "started_at": func.coalesce(Job.started_at, now),
            "events_position": 0,
            "progress": 0.0,
        },
    )
    return None if job is None else Claim(job.id, job.attempt, job.lease_token, job.spec)


def finish_succeeded(
    session: Session, *, job_id: str, lease_token: int, result: dict[str, Any], now: datetime
) -> None:
    """Move a job to its good end with its result; `LeaseLostError` when the lease is not the caller's."""
    values = {"result": result, "progress": 1.0, "eta_seconds": 0.0}
    _move_under_lease(session, job_id, lease_token, "succeeded", now=now, values=values)


def finish_failed(session: Session, *, job_id: str, lease_token: int, ending: Ending, now: datetime) -> None:
    """End a job that cannot succeed; trying again would fail the same way."""
    _move_under_lease(session, job_id, lease_token, "failed", now=now, ending=ending)


def finish_cancelled(session: Session, *, job_id: str, lease_token: int, now: datetime) -> None:
    """End a job whose cancellation was asked for, once its trainer has stopped."""
    _move_under_lease(session, job_id, lease_token, "cancelled", now=now, ending=CANCELLED)


def release_to_queue(session: Session, *, job_id: str, lease_token: int, now: datetime) -> Status:
    """Give a job back because the worker stops; no attempt is used up.

    Returns
    -------
    Status
        ``queued``, or ``cancelled`` when that was asked for meanwhile.
    """
    job = lock_under_lease(session, job_id, lease_token)
    return _give_back(session, job, WORKER_STOPPED, now=now, used=0, max_attempts=None)


def release_after_crash(
    session: Session, *, job_id: str, lease_token: int, message: str, max_attempts: int, now: datetime
) -> Status:
    """Give a job back whose trainer crashed, which uses up an attempt.

    Returns
    -------
    Status
        ``queued``, ``failed`` when no attempt is left, or ``cancelled`` when that was asked for meanwhile.
    """
    job = lock_under_lease(session, job_id, lease_token)
    return _give_back(session, job, trainer_crashed(message), now=now, used=1, max_attempts=max_attempts)


def requeue_expired(session: Session, *, now: datetime, max_attempts: int) -> list[str]:
    """Take back every job whose lease has ended, which uses up an attempt of each.

    Returns
    -------
    list of str
        Ids of the jobs taken back, whether they are queued again or have failed.
    """
    expired = session.scalars(
        select(Job)
        .where(Job.status == "running", Job.lease_expires_at < now)
        .order_by(Job.id)
        .with_for_update(skip_locked=True)
    ).all()
    for job in expired:
        _give_back(session, job, WORKER_LOST, now=now, used=1, max_attempts=max_attempts)
    return [job.id for job in expired]


def request_cancel(session: Session, *, job_id: str, now: datetime) -> Job:
    """Cancel a queued job at once, or ask the worker of a running one to stop.

    Returns
    -------
    Job
        The job afterwards. Asking again changes nothing; `JobFinishedError` once the job has ended.
    """
    job = get_job(session, job_id, for_update=True)
    if job.status in TERMINAL_STATUSES:
        raise JobFinishedError(f"The job has already ended: it is {job.status}.")
    if job.status == "queued":
        _move(session, job.id, "queued", "cancelled", now=now, ending=CANCELLED)
    elif not job.cancel_requested:
        job.cancel_requested = True
        job.last_sequence += 1
        job.updated_at = now
        session.flush()
        insert_events(session, job, [NewEvent(CANCEL_REQUESTED_EVENT, {})], now=now)
    return get_job(session, job.id)


def _give_back(
    session: Session, job: Job, ending: Ending, *, now: datetime, used: int, max_attempts: int | None
) -> Status:
    """Move a running job, whose row the caller has locked, to where it belongs without its worker."""
    target: Status = "queued"
    if job.cancel_requested:
        target, ending = "cancelled", CANCELLED
    elif max_attempts is not None and job.attempts_used + used >= max_attempts:
        target = "failed"
    values = {"attempts_used": Job.attempts_used + used, "hinted_at": None}
    if target == "queued":
        values["phase"] = None
    _move_under_lease(session, job.id, job.lease_token, target, now=now, ending=ending, values=values)
    return target


def _move_under_lease(
    session: Session,
    job_id: str,
    lease_token: int,
    target: Status,
    *,
    now: datetime,
    ending: Ending = GOOD_END,
    values: Mapping[str, Any] | None = None,
) -> None:
    guard = Job.lease_token == lease_token
    if _move(session, job_id, "running", target, now=now, guard=guard, ending=ending, values=values) is None:
        raise LeaseLostError("The job is no longer this worker's.")


def _move(
    session: Session,
    job_id: str,
    source: Status,
    target: Status,
    *,
    now: datetime,
    guard: ColumnElement[bool] | None = None,
    ending: Ending = GOOD_END,
    values: Mapping[str, Any] | None = None,
) -> Job | None:
    """Move a job if it is in ``source`` and the guard holds; the single statement that sets a status."""
    if target not in ALLOWED_MOVES[source]:
        raise ValueError(f"{source} → {target} is not an allowed move")
    ended = target in TERMINAL_STATUSES
    changes: dict[str, Any] = {
        "status": target,
        "eta_seconds": None,
        "lease_expires_at": None,
        "last_sequence": Job.last_sequence + 1,
        "updated_at": now,
        "finished_at": now if ended else None,
        **(asdict(ending) if ended else {}),
        **(values or {}),
    }
    job = session.scalars(
        update(Job)
        .where(Job.id == job_id, Job.status == source, true() if guard is None else guard)
        .values(changes)
        .returning(Job)
        .execution_options(synchronize_session=False, populate_existing=True)
    ).one_or_none()
    if job is not None:
        record_move(session, job, ending, now=now)
    return job
