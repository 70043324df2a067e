"""The caretaker that makes the job table true again: takes back jobs of lost workers, re-sends lost hints.

It also ends jobs that are over their time, heeds requests that nobody else has, and ends and deletes
generations that nobody waits for. One pass is a function of ``now`` alone, so tests decide what has expired.
Several processes may run it; an advisory lock lets one of them through at a time, and a pass that finds the
lock taken does nothing. No transaction is open while the broker is spoken to. What is only old is forgotten
after that, by itself, so that however much there is, it holds no job up.
"""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sqlalchemy import Engine, and_, func, select, update
from sqlalchemy.orm import Session

from store.database import server_now, transaction
from store.errors import UnavailableError
from store.generations import count_waiting, expire_generations, remove_old_generations
from store.idempotency import forget_expired
from store.job_queries import is_due
from store.jobs import end_over_time, requeue_expired, settle_requests
from store.models import Job
from store.passes import make_passes
from store.queue import count_hints, send_generation_hint, send_job_hint
from store.quotas import NO_LIMITS, Quotas, may_start
from store.settings import Settings
from store.webhook_deliveries import forget_old_deliveries
from store.workers import forget_silent_workers

logger = logging.getLogger(__name__)

_LOCK_KEY = 0x436F6E64  # any number that nothing else in this database locks


@dataclass(frozen=True)
class Reconciled:
    """What one pass did, as ids of jobs."""

    taken_back: list[str]
    hinted: list[str]
    over_time: list[str] = field(default_factory=list)
    settled: list[str] = field(default_factory=list)


def reconcile_once(
    engine: Engine, settings: Settings, now: datetime, *, is_heard: bool = True
) -> Reconciled | None:
    """Make one pass; None when another process is making one.

    Parameters
    ----------
    engine
        The database.
    settings
        Attempts per job, the broker, and how long a hint may take to be answered.
    now
        Leases that ended before it are over.
    is_heard
        Whether workers have had the time to beat since Postgres could not be reached. Before, a lease that
        has ended says nothing of its worker, and no job is taken back; nor is a generation ended, for
        nobody could draw it or ask for it.
    """
    with transaction(engine) as session:
        if not _may_pass(session):
            return None
        taken_back: list[str] = []
        if is_heard:
            taken_back = requeue_expired(session, now=now, max_attempts=settings.max_attempts)
            expire_generations(session, now=now)
        over_time = end_over_time(session, now=now, slack_seconds=_longest_stop_seconds(settings))
        settled = settle_requests(session, now=now)
        waiting = _count_queued(session, now, Quotas.by_default(settings))
        waiting_generations = count_waiting(session, now=now)
    if taken_back:
        logger.warning("took back %d jobs whose workers stopped reporting: %s", len(taken_back), taken_back)
    if over_time:
        logger.warning("ended %d jobs that had run for too long: %s", len(over_time), over_time)
    hinted: list[str] = []
    for queue, jobs in waiting.items():
        hinted += _send_missing_hints(engine, settings, queue, jobs, now)
    _send_missing_generation_hints(settings, waiting_generations)
    return Reconciled(taken_back=taken_back, hinted=hinted, over_time=over_time, settled=settled)


def forget_what_is_old(engine: Engine, settings: Settings, now: datetime) -> None:
    """Delete old answers, messages, generations and workers, unless another process is about it.

    Parameters
    ----------
    engine, settings
        As of `reconcile_once`.
    now
        What is old is older than so much before it.
    """
    with transaction(engine) as session:
        if not _may_pass(session):
            return
        forget_expired(session, now=now)
        forget_old_deliveries(session, now=now)
        remove_old_generations(session, now=now, keep_seconds=settings.generation_keep_seconds)
        forget_silent_workers(session, now=now)


def unclaimed_jobs(
    session: Session,
    *,
    queue: str,
    older_than: datetime,
    limit: int,
    now: datetime,
    quotas: Quotas = NO_LIMITS,
) -> list[str]:
    """Pick queued jobs to send a hint for, the most urgent first, and note that one is sent now.

    Parameters
    ----------
    session
        An open transaction; hints are sent after it commits.
    queue
        Jobs of this queue.
    older_than
        Jobs hinted after this time are left alone: their message may still be on its way.
    limit
        Most jobs to pick.
    now
        Time of the hints.
    quotas
        Limits of tenants that have none of their own; jobs that may not run because of them are left out.
    """
    picked = (
        select(Job.id)
        .where(Job.status == "queued", Job.queue == queue, is_due(now), may_start(quotas))
        .where(Job.hinted_at.is_(None) | (Job.hinted_at < older_than))
        .order_by(Job.priority.desc(), Job.hinted_at.nulls_first(), Job.id)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    marked = update(Job).where(Job.id.in_(picked)).values(hinted_at=now).returning(Job.id)
    return sorted(session.scalars(marked.execution_options(synchronize_session=False)))


def run_reconciler(
    engine: Engine,
    settings: Settings,
    stop: threading.Event,
    observe: Callable[[Reconciled | None], None] = lambda _: None,
) -> None:
    """Make a pass every ``reconcile_seconds`` until ``stop`` is set; the body of a thread.

    What each pass did is told to ``observe``. Until Postgres has answered for two heartbeats without a gap no
    job is taken back and no generation ended: after an outage longer than a lease all leases have ended, of
    living workers too.
    """
    answers_since: float | None = None

    def reconcile() -> None:
        nonlocal answers_since
        before, answers_since = answers_since, None
        with transaction(engine) as session:
            now = server_now(session)
        since = time.monotonic() if before is None else before
        is_heard = time.monotonic() - since >= 2 * settings.heartbeat_seconds
        observe(reconcile_once(engine, settings, now, is_heard=is_heard))
        answers_since = since
        forget_what_is_old(engine, settings, now)

    make_passes(reconcile, stop, name="reconciler", pause_seconds=settings.reconcile_seconds)


def _may_pass(session: Session) -> bool:
    return bool(session.scalar(select(func.pg_try_advisory_xact_lock(_LOCK_KEY))))


def _longest_stop_seconds(settings: Settings) -> float:
    """How long a worker that was told to stop may take: for the trainer's checkpoint, and to store that."""
    return 2 * settings.cancel_grace_seconds + settings.upload_patience_seconds


def _count_queued(session: Session, now: datetime, quotas: Quotas) -> dict[str, int]:
    may_be_taken = and_(Job.status == "queued", is_due(now), may_start(quotas))
    counted = select(Job.queue, func.count()).where(may_be_taken).group_by(Job.queue)
    return {queue: int(jobs) for queue, jobs in session.execute(counted)}


def _send_missing_hints(
    engine: Engine, settings: Settings, queue: str, jobs: int, now: datetime
) -> list[str]:
    """Send as many hints as the broker's queue holds too few.

    A queue with at least one message per queued job needs none: busy workers have simply not come to them.
    Messages that outlived their job make the queue seem fuller than it is, but idle workers drain those.
    """
    sent: list[str] = []
    try:
        missing = jobs - count_hints(settings, queue)
        if missing <= 0:
            return sent
        with transaction(engine) as session:
            older_than = now - timedelta(seconds=settings.reconcile_seconds)
            picked = unclaimed_jobs(
                session,
                queue=queue,
                older_than=older_than,
                limit=missing,
                now=now,
                quotas=Quotas.by_default(settings),
            )
        for job_id in picked:
            send_job_hint(settings, job_id, queue)
            sent.append(job_id)
    except UnavailableError as error:
        logger.warning("no hints sent to queue %s: %s", queue, error.detail)
    return sent


def _send_missing_generation_hints(settings: Settings, waiting: int) -> None:
    """Send as many hints as the interactive queue holds too few; one too many costs its worker a look."""
    if not waiting:
        return
    try:
        for _ in range(waiting - count_hints(settings, settings.interactive_queue)):
            send_generation_hint(settings)
    except UnavailableError as error:
        logger.warning("no hints sent to queue %s: %s", settings.interactive_queue, error.detail)
