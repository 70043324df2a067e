"""Reading jobs: one by its id, pages of them, and the condition that one may be taken."""

from datetime import datetime

from sqlalchemy import ColumnElement, Text, and_, cast, func, select
from sqlalchemy.orm import Session, selectinload

from store.database import Page
from store.errors import NotFoundError
from store.ids import parse_cursor, parse_job_id
from store.models import Job, Status


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
    search: str | None = None,
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
    search
        Only jobs whose id, teacher or student holds every one of these words.
    """
    query = select(Job).options(selectinload(Job.transitions)).order_by(Job.id.desc()).limit(limit + 1)
    if after is not None:
        query = query.where(Job.id < parse_cursor(after))
    if status is not None:
        query = query.where(Job.status == status)
    if teacher is not None:
        query = query.where(Job.teacher == teacher)
    if search is not None:
        query = query.where(*_holds_words(search))
    return Page.cut(list(session.scalars(query)), limit, lambda job: job.id)


def _holds_words(search: str) -> list[ColumnElement[bool]]:
    """Conditions on a job that it is called so; a name such as ``width-0.75`` counts as two words."""
    text = func.concat_ws(" ", cast(Job.id, Text), Job.teacher, Job.spec["student"].astext)
    words = search.replace("-", " ").split()
    return [text.icontains(word, autoescape=True) for word in words]


def is_due(now: datetime) -> ColumnElement[bool]:
    """Condition on a queued job that a worker may take it at this time."""
    is_time = Job.not_before.is_(None) | (Job.not_before <= now)
    return and_(is_time, Job.cancel_requested.is_(False), Job.pause_requested.is_(False))
