"""Clears up what deleted jobs and caption files left, and uploads that were broken off.

Of the object store only what this very database names is removed. A key that it does not know is left alone:
the bucket may be shared, or the database restored from an older backup. Several processes may clear the same:
removing what is gone changes nothing.

Objects that the store refuses to remove, because they are locked or the key may not, are tried again for
ever and hold nothing else up: what is due is taken in no order, and each kind of work by itself.
"""

import logging
import threading
import time
from datetime import datetime, timedelta

from sqlalchemy import delete, func, select, update

from store.artifacts import JOBS_PREFIX, job_prefix
from store.database import Engine, server_now, transaction
from store.deletion import remove_rows
from store.models import DeletedJob
from store.objects import ObjectStore
from store.passes import make_passes, try_to
from store.settings import Settings
from store.stored_bytes import recount_bytes
from store.unclaimed import forget, take_due

logger = logging.getLogger(__name__)

LATE_UPLOADS_END = timedelta(hours=1)
"""A worker that lost its lease before the job was deleted has ended its last request by then."""

UPLOADS_ARE_BROKEN = timedelta(hours=24)
"""No upload takes that long."""

_JOBS_A_PASS = 20


def run_sweeper(engine: Engine, objects: ObjectStore, settings: Settings, stop: threading.Event) -> None:
    """Clear the object store every ``reconcile_seconds`` until ``stop`` is set; the body of a thread.

    Every ``sweep_seconds`` broken uploads are looked for, and what tenants store is counted anew. The thread
    is not the reconciler's: a store that takes minutes to fail must not keep jobs with their dead workers.
    """
    next_look = 0.0

    def sweep() -> None:
        nonlocal next_look
        with transaction(engine) as session:
            now = server_now(session)
        try_to(lambda: remove_deleted_jobs(engine, objects, now), name="sweeper")
        try_to(lambda: remove_unclaimed_objects(engine, objects, now), name="sweeper")
        if time.monotonic() >= next_look:
            try_to(lambda: abort_stale_uploads(objects, now), name="sweeper")
            recount_bytes(engine)
            next_look = time.monotonic() + settings.sweep_seconds

    make_passes(sweep, stop, name="sweeper", pause_seconds=settings.reconcile_seconds)


def remove_deleted_jobs(engine: Engine, objects: ObjectStore, now: datetime) -> list[str]:
    """Remove the rows of deleted jobs, and their objects: soon, and again when no late upload can follow.

    Returns
    -------
    list of str
        Ids of the jobs whose objects were removed.
    """
    late = DeletedJob.deleted_at < now - LATE_UPLOADS_END
    with transaction(engine) as session:
        due = session.scalars(
            select(DeletedJob)
            .where(DeletedJob.swept_at.is_(None) | late)
            .order_by(func.random())
            .limit(_JOBS_A_PASS)
        ).all()
    for job in due:
        remove_rows(engine, job.job_id)
        objects.delete_prefix(job_prefix(job.job_id))
        this = DeletedJob.job_id == job.job_id
        with transaction(engine) as session:
            if job.deleted_at < now - LATE_UPLOADS_END:
                session.execute(delete(DeletedJob).where(this))
            else:
                session.execute(update(DeletedJob).where(this).values(swept_at=now))
    return [job.job_id for job in due]


def remove_unclaimed_objects(engine: Engine, objects: ObjectStore, now: datetime) -> list[str]:
    """Remove what lies under keys that nothing speaks of, half-finished uploads too.

    Returns
    -------
    list of str
        The keys.
    """
    with transaction(engine) as session:
        keys = list(take_due(session, now=now))
    if not keys:
        return keys
    for key in keys:
        objects.abort_uploads(key, begun_before=None)
    objects.delete_keys(keys)
    with transaction(engine) as session:
        forget(session, keys)
    return keys


def abort_stale_uploads(objects: ObjectStore, now: datetime) -> list[str]:
    """Give up multipart uploads of jobs that were begun long ago and never completed; their keys."""
    aborted = objects.abort_uploads(JOBS_PREFIX, begun_before=now - UPLOADS_ARE_BROKEN)
    if aborted:
        logger.warning("gave up %d uploads that were never completed: %s", len(aborted), aborted)
    return aborted
