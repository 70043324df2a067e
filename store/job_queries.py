"""Reading jobs: one by its id, pages of them, and the condition that one may be taken."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Text, and_, cast, func, select
from sqlalchemy.dialects.postgresql import array
from sqlalchemy.orm import Session, defer, selectinload

from store.database import Page
from store.errors import NotFoundError
from store.ids import parse_cursor, parse_job_id
from store.models import Job, Status

WITHOUT_SPEC = defer(Job.spec, raiseload=True)
"""Leaves a job's specification out, for whoever reads many jobs or one again and again."""

CAPTION_FIELDS = ("captions", "drawn")
"""The fields of a specification that may hold as many texts as a request can carry."""


def get_job(session: Session, job_id: str, *, for_update: bool = False) -> Job:
    """Read a job with its transitions, and lock it if asked; `NotFoundError` when there is none."""
    query = select(Job).where(Job.id == parse_job_id(job_id)).options(selectinload(Job.transitions))
    if for_update:
        query = query.with_for_update(of=Job)
    job = session.scalars(query.execution_options(populate_existing=True)).one_or_none()
    if job is None:
        raise NotFoundError("There is no such job.")
    return job


def find_job(session: Session, job_id: str) -> str:
    """Give the id of a job as the tables have it, without reading the job; `NotFoundError` without one."""
    found = session.scalar(select(Job.id).where(Job.id == parse_job_id(job_id)))
    if found is None:
        raise NotFoundError("There is no such job.")
    return found


def list_jobs(
    session: Session,
    *,
    after: str | None = None,
    limit: int = 20,
    status: Status | None = None,
    teacher: str | None = None,
    search: str | None = None,
) -> Page[Job]:
    """List jobs with their transitions, the newest first, and without their specifications.

    These may hold megabytes of captions each. `read_settings` gives what else there is in them.

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
    query = select(Job).options(selectinload(Job.transitions), WITHOUT_SPEC)
    query = query.order_by(Job.id.desc()).limit(limit + 1)
    if after is not None:
        query = query.where(Job.id < parse_cursor(after))
    if status is not None:
        query = query.where(Job.status == status)
    if teacher is not None:
        query = query.where(Job.teacher == teacher)
    if search is not None:
        query = query.where(*_holds_words(search))
    return Page.cut(list(session.scalars(query)), limit, lambda job: job.id)


def read_settings(session: Session, job_ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Read the specifications of jobs without the fields that hold captions."""
    settings = Job.spec.op("-")(array(CAPTION_FIELDS)).label("settings")
    rows = session.execute(select(Job.id, settings).where(Job.id.in_(job_ids)))
    return {row.id: row.settings for row in rows}


def _holds_words(search: str) -> list[ColumnElement[bool]]:
    """Conditions on a job that it is called so; a name such as ``width-0.75`` counts as two words."""
    text = func.concat_ws(" ", cast(Job.id, Text), Job.teacher, cast(Job.student, Text))
    words = search.replace("-", " ").split()
    return [text.icontains(word, autoescape=True) for word in words]


def is_due(now: datetime) -> ColumnElement[bool]:
    """Condition on a queued job that a worker may take it at this time."""
    is_time = Job.not_before.is_(None) | (Job.not_before <= now)
    return and_(is_time, Job.cancel_requested.is_(False), Job.pause_requested.is_(False))
