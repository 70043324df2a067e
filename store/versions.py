"""How far the histories of many jobs and generations have come, in one query each.

The API asks this for all the jobs that some client waits for, so that a thousand waiting clients cost the
database one statement at a time.
"""

from collections.abc import Collection

from sqlalchemy import select
from sqlalchemy.orm import Session

from store.models import Generation, Job


def latest_sequences(session: Session, job_ids: Collection[str]) -> dict[str, int]:
    """Return the number of the last event of each job; a job that does not exist is absent."""
    rows = session.execute(select(Job.id, Job.last_sequence).where(Job.id.in_(job_ids)))
    return {row.id: row.last_sequence for row in rows}


def latest_versions(session: Session, ids: Collection[str]) -> dict[str, int]:
    """Return the version of each job and generation of these ids; what does not exist is absent."""
    rows = session.execute(select(Generation.id, Generation.version).where(Generation.id.in_(ids)))
    return latest_sequences(session, ids) | {row.id: row.version for row in rows}
