"""Which attempts are under way, for whoever clears up after those that are not."""

from sqlalchemy import select
from sqlalchemy.orm import Session

from store.models import Job


def running_attempts(session: Session) -> set[tuple[str, str]]:
    """Return the job and the number, as text, of every attempt that runs: the names of its work folder."""
    rows = session.execute(select(Job.id, Job.attempt).where(Job.status == "running"))
    return {(row.id, str(row.attempt)) for row in rows}
