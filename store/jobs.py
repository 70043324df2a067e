"""The state machine of a job; the only module that moves one from a status to another.

Every move is one guarded UPDATE … RETURNING that also reserves the number of the event which tells of it;
transition and event are written in the same transaction. A move that its guard refuses changes nothing.
Time, ids and lease tokens come in as arguments. The moves of a worker are guarded by its lease token, which
only grows, so a worker that was given up cannot change the job any more.

What a user asks of a running job is only noted: its worker reads it with the next heartbeat, lets the trainer
write a checkpoint and gives the job back, and giving back moves the job to where the request wants it.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, and_, case, extract, func, select, true, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from core.spec import DistillationSpec
from store.endings import (
    CANCELLED,
    GOOD_END,
    MAX_RUNTIME,
    PAUSED,
    RESUMED,
    RETRIED,
    WORKER_LOST,
    WORKER_STOPPED,
    Ending,
    ending_of,
)
from store.errors import (
    CancelRequestedError,
    JobFinishedError,
    JobNotEndedError,
    JobRunningError,
    LeaseLostError,
)
from store.events import (
    CANCEL_REQUESTED_EVENT,
    PAUSE_REQUESTED_EVENT,
    PAUSE_WITHDRAWN_EVENT,
    WARNING_EVENT,
    NewEvent,
    note_event,
    record_move,
)
from store.idempotency import IdempotencyKey, forget_job, reserve
from store.ids import new_job_id, parse_job_id
from store.job_options import JobOptions
from store.job_queries import get_job, is_due
from store.leases import lock_under_lease, run_seconds, stop_wish
from store.micro_batch import samples_at_once, smaller_micro_batch, with_micro_batch
from store.models import TERMINAL_STATUSES, DeletedJob, Job, Reason, Status
from store.quotas import (
    NO_LIMITS,
    Quotas,
    check_return,
    check_submission,
)
from store.step_wishes import STEP_WISHES
from store.stored_bytes import bytes_of_job, count_bytes
from store.tenancy import tenant_of

ALLOWED_MOVES: Mapping[Status, frozenset[Status]] = {
    "queued": frozenset({"running", "paused", "cancelled"}),
    "running": frozenset({"queued", "paused", "succeeded", "failed", "cancelled"}),
    "paused": frozenset({"queued", "cancelled"}),
    "succeeded": frozenset(),
    "failed": frozenset({"queued"}),
    "cancelled": frozenset({"queued"}),
}


@dataclass(frozen=True)
class Claim:
    """A worker's right to a job, until its lease ends.

    Attributes
    ----------
    spec
        What the trainer is given: the accepted specification, with a smaller micro-batch where that was found
        necessary.
    scratch_attempt
        Checkpoints of attempts up to this one are not to be continued from.
    """

    job_id: str
    tenant_id: str
    attempt: int
    lease_token: int
    spec: dict[str, Any]
    scratch_attempt: int


def create_job(
    session: Session,
    *,
    spec: DistillationSpec,
    queue: str,
    now: datetime,
    options: JobOptions = JobOptions(),  # noqa: B008  # immutable
    idempotency: IdempotencyKey | None = None,
    job_id: str | None = None,
    quotas: Quotas = NO_LIMITS,
    memory_bytes: int | None = None,
) -> Job:
    """Write a queued job with its first event.

    Parameters
    ----------
    session
        An open transaction; the job exists once it commits, and the caller may then ring the queue's bell.
        The job belongs to the session's tenant.
    spec
        The validated specification.
    queue
        Celery queue, one per class of accelerator.
    now
        Time of creation.
    options
        How the job is treated.
    idempotency
        When its key was used before with the same request, that request's job is returned.
    job_id
        Id of the new job; made from ``now`` by default. A returned job with another id is a replay.
    quotas
        Limits of tenants that have none of their own.
    memory_bytes
        What its training takes, where the queue was chosen by that.

    Returns
    -------
    Job
        The job with its transitions.

    Raises
    ------
    QuotaExceededError
        If the tenant may not submit it.
    """
    job_id = job_id or new_job_id(now)
    if idempotency is not None:
        bound = reserve(session, idempotency, job_id=job_id, now=now)
        if bound != job_id:
            return get_job(session, bound)
    document = spec.model_dump(mode="json")
    job = Job(
        id=job_id,
        tenant_id=tenant_of(session),
        status="queued",
        queue=queue,
        teacher=spec.teacher,
        spec=document,
        kept_student=document["student"],
        priority=options.priority,
        max_runtime_s=options.max_runtime_s,
        not_before=options.not_before,
        memory_bytes=memory_bytes,
        last_sequence=1,
        hinted_at=now,
        created_at=now,
        updated_at=now,
    )
    session.add(job)
    session.flush()
    record_move(session, job, GOOD_END, now=now)
    written = get_job(session, job_id)
    check_submission(session, written, spec.captions, quotas)
    return written


def claim_job(
    session: Session, *, job_id: str, worker: str, now: datetime, lease_seconds: float
) -> Claim | None:
    """Take a queued job (queued → running); None when it is not to be had, for whatever reason."""
    job = _move(
        session,
        job_id,
        "queued",
        "running",
        now=now,
        guard=is_due(now),
        values={
            "worker": worker,
            "attempt": Job.attempt + 1,
            "lease_token": Job.lease_token + 1,
            "lease_expires_at": now + timedelta(seconds=lease_seconds),
            "started_at": func.coalesce(Job.started_at, now),
            "claimed_at": now,
            "events_position": 0,
            "progress": 0.0,
        },
    )
    if job is None:
        return None
    spec = with_micro_batch(job.spec, job.micro_batch_size)
    return Claim(job.id, job.tenant_id, job.attempt, job.lease_token, spec, job.scratch_attempt)


def finish_succeeded(
    session: Session, *, job_id: str, lease_token: int, result: dict[str, Any], now: datetime
) -> None:
    """Move a job to its good end with its result; `LeaseLostError` when the lease is not the caller's."""
    values = {"result": result, "progress": 1.0, "eta_seconds": 0.0}
    _move_under_lease(session, job_id, lease_token, "succeeded", now=now, values=values)


def finish_failed(session: Session, *, job_id: str, lease_token: int, ending: Ending, now: datetime) -> None:
    """End a job that cannot succeed; another attempt would fail the same way."""
    _move_under_lease(session, job_id, lease_token, "failed", now=now, ending=ending)


def release_to_queue(session: Session, *, job_id: str, lease_token: int, now: datetime) -> Status:
    """Give a job back that was asked to stop, or whose worker stops; no attempt is used up.

    Returns
    -------
    Status
        ``queued``; ``cancelled`` or ``paused`` when that was asked for; ``failed`` when its time is over.
    """
    job = lock_under_lease(session, job_id, lease_token)
    return _give_back(session, job, WORKER_STOPPED, now=now, used=0, max_attempts=None)


def release_after_crash(
    session: Session,
    *,
    job_id: str,
    lease_token: int,
    message: str,
    max_attempts: int,
    now: datetime,
    reason: Reason = "trainer_crashed",
) -> Status:
    """Give a job back whose trainer crashed, or whose worker's disk was full, which uses up an attempt.

    Returns
    -------
    Status
        As of `release_to_queue`; or ``failed`` when no attempt is left.
    """
    job = lock_under_lease(session, job_id, lease_token)
    crash = ending_of(reason, message)
    return _give_back(session, job, crash, now=now, used=1, max_attempts=max_attempts)


def release_after_out_of_memory(
    session: Session,
    *,
    job_id: str,
    lease_token: int,
    ending: Ending,
    processes: int,
    max_attempts: int,
    now: datetime,
) -> Status:
    """Give a job back whose trainer ran out of memory.

    The first time its micro-batch is made smaller, at most half of what each of the trainer's `processes`
    passed at once, and no attempt is used up: the batch, and so what is learnt, stays the same. From then on,
    or where there is nothing to halve, it uses up an attempt.

    Returns
    -------
    Status
        As of `release_after_crash`.
    """
    job = lock_under_lease(session, job_id, lease_token, with_spec=True)
    smaller = smaller_micro_batch(job.spec, processes) if job.micro_batch_size is None else None
    if smaller is None:
        return _give_back(session, job, ending, now=now, used=1, max_attempts=max_attempts)
    told = (
        f"The memory is used up: the job goes on with micro-batches of {smaller} samples instead of "
        f"{samples_at_once(job.spec, processes)}; the batch stays as large as it was."
    )
    job.micro_batch_size = smaller
    note_event(session, job, NewEvent(WARNING_EVENT, {"message": told}), now=now)
    return _give_back(session, job, ending, now=now, used=0, max_attempts=None)


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


def end_over_time(session: Session, *, now: datetime, slack_seconds: float) -> list[str]:
    """End every job that has run for longer than it may, although its worker was told to stop long ago.

    Parameters
    ----------
    session
        An open transaction.
    now
        Time of the moves.
    slack_seconds
        What a worker may take to hear of it, to let the trainer write a checkpoint and to store that: it may
        have gigabytes, and a worker that beats is at work on it.

    Returns
    -------
    list of str
        Ids of the jobs; their workers find their leases lost.
    """
    ran = Job.runtime_s + extract("epoch", now - Job.claimed_at)
    over_time = session.scalars(
        select(Job)
        .where(Job.status == "running", Job.lease_expires_at >= now, ran > Job.max_runtime_s + slack_seconds)
        .order_by(Job.id)
        .with_for_update(skip_locked=True)
    ).all()
    for job in over_time:
        _give_back(session, job, MAX_RUNTIME, now=now, used=0, max_attempts=None)
    return [job.id for job in over_time]


def settle_requests(session: Session, *, now: datetime) -> list[str]:
    """Cancel or pause every queued job of which that was asked while it ran.

    Giving a job back heeds what was asked; this is for jobs that came back to the queue in another way, by a
    worker of an earlier release.
    """
    unsettled = session.scalars(
        select(Job)
        .where(Job.status == "queued", Job.cancel_requested | Job.pause_requested)
        .order_by(Job.id)
        .with_for_update(skip_locked=True)
    ).all()
    for job in unsettled:
        target: Status = "cancelled" if job.cancel_requested else "paused"
        why = CANCELLED if job.cancel_requested else PAUSED
        _move(session, job.id, "queued", target, now=now, ending=why)
    return [job.id for job in unsettled]


def request_cancel(session: Session, *, job_id: str, now: datetime) -> Job:
    """Cancel a queued or paused job at once, or ask the worker of a running one to stop.

    Returns
    -------
    Job
        The job afterwards. Asking again changes nothing; `JobFinishedError` once the job has ended.
    """
    job = _get_unended(session, job_id)
    if job.status != "running":
        _move(session, job.id, job.status, "cancelled", now=now, ending=CANCELLED)
    elif not job.cancel_requested:
        job.cancel_requested = True
        note_event(session, job, NewEvent(CANCEL_REQUESTED_EVENT, {}), now=now)
    return get_job(session, job.id)


def request_pause(session: Session, *, job_id: str, now: datetime) -> Job:
    """Pause a queued job at once, or ask the worker of a running one to stop.

    Returns
    -------
    Job
        The job afterwards. Asking again changes nothing; `JobFinishedError` once the job has ended,
        `CancelRequestedError` when it is about to.
    """
    job = _get_unended(session, job_id)
    if job.cancel_requested:
        raise CancelRequestedError("The job is being cancelled and cannot be paused.")
    if job.status == "queued":
        _move(session, job.id, "queued", "paused", now=now, ending=PAUSED)
    elif job.status == "running" and not job.pause_requested:
        job.pause_requested = True
        note_event(session, job, NewEvent(PAUSE_REQUESTED_EVENT, {}), now=now)
    return get_job(session, job.id)


def resume_job(session: Session, *, job_id: str, now: datetime, quotas: Quotas = NO_LIMITS) -> Job:
    """Queue a paused job again, or withdraw the wish to pause a running one.

    Returns
    -------
    Job
        The job afterwards. A job that is not paused stays as it is; `JobFinishedError` once it has ended,
        `QuotaExceededError` when its tenant may not have another one in the queue.
    """
    job = _get_unended(session, job_id)
    if job.status == "paused":
        _move(session, job.id, "paused", "queued", now=now, ending=RESUMED, values={"hinted_at": now})
        check_return(session, job, quotas)
    elif job.pause_requested:
        job.pause_requested = False
        note_event(session, job, NewEvent(PAUSE_WITHDRAWN_EVENT, {}), now=now)
    return get_job(session, job.id)


def retry_job(
    session: Session, *, job_id: str, from_scratch: bool, now: datetime, quotas: Quotas = NO_LIMITS
) -> Job:
    """Queue a failed or cancelled job again, with all its attempts and its whole time before it.

    Parameters
    ----------
    session
        An open transaction.
    job_id
        The job.
    from_scratch
        Leave its checkpoints aside; by default it goes on from the last one.
    now
        Time of the move.
    quotas
        Limits of tenants that have none of their own.

    Returns
    -------
    Job
        The job afterwards; `JobNotEndedError` while it has not ended, `JobFinishedError` when it succeeded,
        `QuotaExceededError` when its tenant may not have another one in the queue.
    """
    job = get_job(session, job_id, for_update=True)
    if job.status == "succeeded":
        raise JobFinishedError("The job has succeeded. Clone it to do the same work once more.")
    if job.status not in TERMINAL_STATUSES:
        raise JobNotEndedError(f"The job has not ended: it is {job.status}.")
    values = {
        "attempts_used": 0,
        "cancel_requested": False,
        "hinted_at": now,
        "micro_batch_size": None,
        "phase": None,
        "progress": 0.0,
        "runtime_s": 0.0,
        "scratch_attempt": Job.attempt if from_scratch else Job.scratch_attempt,
    }
    _move(session, job.id, job.status, "queued", now=now, ending=RETRIED, values=values)
    check_return(session, job, quotas)
    return get_job(session, job.id)


def delete_job(session: Session, *, job_id: str, now: datetime) -> None:
    """Delete a job with its history: nobody sees it any more, and the sweeper removes what is left of it.

    Deleting it again changes nothing. `JobRunningError` while a worker is at work on it.
    """
    job_id = parse_job_id(job_id)
    this = and_(Job.id == job_id, Job.status != "running")
    # Locked before its files are added up, so that no worker can take it and store more.
    tenant_id = session.scalar(select(Job.tenant_id).where(this).with_for_update())
    if tenant_id is not None:
        stored = bytes_of_job(session, job_id)
        # It ends, so that nobody counts it or takes it, and the release before cannot either. Nobody is told.
        ended = case((Job.status.in_(TERMINAL_STATUSES), Job.status), else_="cancelled")
        values = {"deleted_at": now, "status": ended, "finished_at": func.coalesce(Job.finished_at, now)}
        gone = update(Job).where(this).values(values)
        session.execute(gone.execution_options(synchronize_session=False))
        forget_job(session, job_id)
        session.execute(insert(DeletedJob).values(job_id=job_id, tenant_id=tenant_id, deleted_at=now))
        count_bytes(session, tenant_id, -stored)
    elif session.scalar(select(DeletedJob.job_id).where(DeletedJob.job_id == job_id)) is None:
        get_job(session, job_id)
        raise JobRunningError("The job is running. Cancel or pause it first.")


def _get_unended(session: Session, job_id: str) -> Job:
    """Lock a job and read it; `JobFinishedError` once it has ended."""
    job = get_job(session, job_id, for_update=True)
    if job.status in TERMINAL_STATUSES:
        raise JobFinishedError(f"The job has already ended: it is {job.status}.")
    return job


def _give_back(
    session: Session, job: Job, ending: Ending, *, now: datetime, used: int, max_attempts: int | None
) -> Status:
    """Move a running job, whose row the caller has locked, to where it belongs without its worker."""
    target: Status = "queued"
    wish = stop_wish(job, now)
    if wish == "cancel":
        target, ending = "cancelled", CANCELLED
    elif wish == "max_runtime":
        target, ending = "failed", MAX_RUNTIME
    elif max_attempts is not None and job.attempts_used + used >= max_attempts:
        target = "failed"
    elif wish == "pause":
        target, ending = "paused", PAUSED
    values = {
        "attempts_used": Job.attempts_used + used,
        "hinted_at": None,
        "runtime_s": run_seconds(job, now),
    }
    if target not in TERMINAL_STATUSES:
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
    at = func.greatest(Job.updated_at, now)  # whoever waited for the row began before what is in it
    changes: dict[str, Any] = {
        "status": target,
        "eta_seconds": None,
        "lease_expires_at": None,
        "claimed_at": None,
        "last_sequence": Job.last_sequence + 1,
        "updated_at": at,
        "finished_at": at if ended else None,
        # Heeded by this move, or made void by it.
        "pause_requested": False,
        **dict.fromkeys(STEP_WISHES.values(), False),
        **asdict(ending if ended else GOOD_END),
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
