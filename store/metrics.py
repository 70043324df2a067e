"""Training curves, as rows of numbers.

A resumed attempt repeats the steps after its checkpoint; a reader sees each step once, from the
latest attempt that reached it. A job that was tried again from scratch leaves the curves of before behind.
"""

from collections.abc import Sequence

from sqlalchemy import ColumnElement, and_, select
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.orm import Session

from store.models import Job, MetricPoint


def list_metric_names(session: Session, job_id: str) -> list[str]:
    """Names of the series that a job has, sorted.

    Looks each up as the next after the one before: there are a few names, and up to a million points.
    """
    first = select(MetricPoint.name).where(_counts_for(job_id)).order_by(MetricPoint.name).limit(1)
    names = first.cte("names", recursive=True)
    following = first.where(MetricPoint.name > names.c.name).scalar_subquery()
    names = names.union_all(select(following).where(names.c.name.is_not(None)))
    return list(session.scalars(select(names.c.name).where(names.c.name.is_not(None))))


def list_metric_points(
    session: Session,
    job_id: str,
    *,
    names: Sequence[str] | None = None,
    after_step: int = -1,
    limit: int = 10_000,
) -> list[MetricPoint]:
    """List the points of a job's curves, ordered by name and step.

    Parameters
    ----------
    session
        An open transaction.
    job_id
        The job.
    names
        Series to read; all by default.
    after_step
        Only points of later steps.
    limit
        Most points to return, over all series together.
    """
    query = select(MetricPoint).where(_counts_for(job_id), MetricPoint.step > after_step)
    if names is not None:
        query = query.where(MetricPoint.name.in_(names))
    query = (
        query.ext(distinct_on(MetricPoint.name, MetricPoint.step))
        .order_by(MetricPoint.name, MetricPoint.step, MetricPoint.attempt.desc())
        .limit(limit)
    )
    return list(session.scalars(query))


def _counts_for(job_id: str) -> ColumnElement[bool]:
    """Condition on a point that it is of a job, and not of an attempt that was left aside."""
    scratch_attempt = select(Job.scratch_attempt).where(Job.id == job_id).scalar_subquery()
    return and_(MetricPoint.job_id == job_id, MetricPoint.attempt > scratch_attempt)
