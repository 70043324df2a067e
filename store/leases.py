"""What the holder of a lease may write to a job without moving it.

Every write is one guarded UPDATE of the job's row, by status and lease token; where it matches no row the
caller's lease is gone and it gets `LeaseLostError`. Writes may be repeated after an unknown outcome (a
connection lost during the commit): the repeat changes nothing.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal, TypedDict

from sqlalchemy import delete, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from store.errors import LeaseLostError
from store.events import NewEvent, insert_events
from store.job_queries import WITHOUT_SPEC
from store.models import PHASES, Artifact, ArtifactKind, Job, MetricPoint
from store.progress import overall_progress
from store.step_wishes import STEP_WISHES, StepWish
from store.stored_bytes import count_bytes
from store.unclaimed import give_up

StopWish = Literal["cancel", "max_runtime", "pause"]
"""Why the holder of a lease shall stop."""


@dataclass(frozen=True)
class HeartbeatReply:
    """What the holder of a lease is told at each beat.

    Attributes
    ----------
    stop
        Why to stop; None to go on.
    wishes
        What to do at the next step besides. They are told again until a later beat says that they were
        handed on.
    """

    stop: StopWish | None
    wishes: frozenset[StepWish] = frozenset()


@dataclass(frozen=True)
class Report:
    """What a trainer has said since the report before.

    Attributes
    ----------
    events
        In the order of the trainer's event file.
    position
        Byte of that file after the last of them. Events up to a position are recorded once: a repeat of a
        report whose commit had succeeded after all is passed over.
    """

    events: Sequence[NewEvent]
    position: int


class NewArtifact(TypedDict):
    """A file whose upload is complete."""

    path: str
    kind: ArtifactKind
    step: int | None
    key: str
    size: int
    sha256: str


def lock_under_lease(session: Session, job_id: str, lease_token: int, *, with_spec: bool = False) -> Job:
    """Lock the row of a job that the caller holds the lease of, until the transaction ends.

    Its specification is read only if asked for: workers write often, and it may be large.
    """
    query = (
        select(Job)
        .where(Job.id == job_id, Job.status == "running", Job.lease_token == lease_token)
        .with_for_update()
        .execution_options(populate_existing=True)
    )
    job = session.scalars(query if with_spec else query.options(WITHOUT_SPEC)).one_or_none()
    if job is None:
        raise LeaseLostError("The job is no longer this worker's.")
    return job


def heartbeat(
    session: Session,
    *,
    job_id: str,
    lease_token: int,
    now: datetime,
    lease_seconds: float,
    handed_on: Collection[StepWish] = (),
    report: Report | None = None,
) -> HeartbeatReply:
    """Extend a lease, say what the trainer said, and learn what its holder shall do, by one UPDATE.

    Parameters
    ----------
    session
        An open transaction.
    job_id, lease_token
        The lease.
    now
        Time of the beat.
    lease_seconds
        For how long the lease is extended from here.
    handed_on
        Wishes of an earlier reply that the trainer has by now; they are not told again.
    report
        What to record with it; None for nothing.
    """
    changes: dict[str, Any] = {"lease_expires_at": now + timedelta(seconds=lease_seconds)}
    changes |= {STEP_WISHES[wish]: False for wish in handed_on}
    if report is None:
        job = _update(session, job_id, lease_token, changes, now=now)
    else:
        job = _update_with_report(session, job_id, lease_token, changes, report, now=now)
    wishes = frozenset(wish for wish, column in STEP_WISHES.items() if getattr(job, column))
    return HeartbeatReply(stop=stop_wish(job, now), wishes=wishes)


def stop_wish(job: Job, now: datetime) -> StopWish | None:
    """Say why a running job shall stop, the gravest reason first; None when it may go on."""
    if job.cancel_requested:
        return "cancel"
    if job.max_runtime_s is not None and run_seconds(job, now) > job.max_runtime_s:
        return "max_runtime"
    return "pause" if job.pause_requested else None


def run_seconds(job: Job, now: datetime) -> float:
    """How long a running job has run, all attempts together; the present one at most until its lease ends."""
    if job.claimed_at is None or job.lease_expires_at is None:  # claimed by the release before this count
        return job.runtime_s
    present = min(now, job.lease_expires_at) - job.claimed_at
    return job.runtime_s + max(present.total_seconds(), 0.0)


def record_events(
    session: Session,
    *,
    job_id: str,
    lease_token: int,
    events: Sequence[NewEvent],
    position: int,
    now: datetime,
) -> None:
    """Append a trainer's events to the job's history and bring phase, progress and curves up to date.

    Parameters
    ----------
    session
        An open transaction.
    job_id, lease_token
        The lease.
    events, position
        As of a `Report`.
    now
        Time of the record.
    """
    _update_with_report(session, job_id, lease_token, {}, Report(events, position), now=now)


def _update_with_report(
    session: Session,
    job_id: str,
    lease_token: int,
    changes: Mapping[str, Any],
    report: Report,
    *,
    now: datetime,
) -> Job:
    job = lock_under_lease(session, job_id, lease_token)
    if job.events_position >= report.position:
        return _update(session, job_id, lease_token, changes, now=now)
    events, attempt = report.events, job.attempt
    moved = _progress_changes(session, events, job)
    moved |= {"events_position": report.position, "last_sequence": Job.last_sequence + len(events)}
    job = _update(session, job_id, lease_token, {**changes, **moved}, now=now)
    insert_events(session, job, [_with_overall_progress(event, job.progress) for event in events], now=now)
    _insert_metric_points(session, job_id, attempt, events)
    return job


def add_artifacts(
    session: Session,
    *,
    job_id: str,
    lease_token: int,
    artifacts: Sequence[NewArtifact],
    event: NewEvent | None,
    now: datetime,
) -> None:
    """Record uploaded files, all or none, and tell of them with one event.

    With a checkpoint beyond those of earlier attempts the job has all attempts before it again: workers may
    die in a long job as long as it gets further.

    Parameters
    ----------
    session
        An open transaction.
    job_id, lease_token
        The lease.
    artifacts
        The files; a checkpoint's come together.
    event
        What the history says once they can be downloaded; None for nothing.
    now
        Time of the record.
    """
    job = lock_under_lease(session, job_id, lease_token)
    added = session.scalars(
        insert(Artifact)
        .values(
            [
                {**artifact, "job_id": job_id, "attempt": job.attempt, "created_at": now}
                for artifact in artifacts
            ]
        )
        .on_conflict_do_nothing()
        .returning(Artifact.size)
    ).all()
    count_bytes(session, job.tenant_id, sum(added))
    if not added:
        return
    changes: dict[str, Any] = {}
    if job.attempts_used and _advances(session, job, artifacts):
        changes["attempts_used"] = 0
    if event is not None:
        changes["last_sequence"] = Job.last_sequence + 1
    if changes:
        job = _update(session, job_id, lease_token, changes, now=now)
    if event is not None:
        insert_events(session, job, [event], now=now)


def replace_artifact(
    session: Session, *, job_id: str, lease_token: int, artifact: NewArtifact, now: datetime
) -> None:
    """Record an uploaded file in the place of an earlier version of it that this attempt has left.

    Each version has a key of its own, so that row and object always belong together; the sweeper removes the
    earlier one's object.

    Parameters
    ----------
    session
        An open transaction.
    job_id, lease_token
        The lease.
    artifact
        The file.
    now
        Time of the record.
    """
    job = lock_under_lease(session, job_id, lease_token)
    deleted = (
        delete(Artifact)
        .where(
            Artifact.job_id == job_id,
            Artifact.attempt == job.attempt,
            Artifact.path == artifact["path"],
            Artifact.key != artifact["key"],
        )
        .returning(Artifact.size, Artifact.key)
    )
    for size, key in session.execute(deleted.execution_options(synchronize_session=False)).all():
        count_bytes(session, job.tenant_id, -size)
        give_up(session, key, now=now)
    add_artifacts(session, job_id=job_id, lease_token=lease_token, artifacts=[artifact], event=None, now=now)


def _advances(session: Session, job: Job, artifacts: Sequence[NewArtifact]) -> bool:
    """Whether files are a checkpoint beyond all that earlier attempts left to go on from."""
    steps = [file["step"] or 0 for file in artifacts if file["kind"] == "checkpoint_file"]
    before = select(func.max(Artifact.step)).where(
        Artifact.job_id == job.id,
        Artifact.kind == "checkpoint_file",
        Artifact.attempt > job.scratch_attempt,
        Artifact.attempt < job.attempt,
    )
    return bool(steps) and max(steps) > (session.scalar(before) or 0)


def forget_checkpoints(
    session: Session,
    *,
    job_id: str,
    lease_token: int,
    steps_by_attempt: Sequence[tuple[int, int]],
    now: datetime,
) -> None:
    """Delete the rows of checkpoints, given as (attempt, step); the sweeper removes their files."""
    job = lock_under_lease(session, job_id, lease_token)
    freed = 0
    for attempt, step in steps_by_attempt:
        deleted = (
            delete(Artifact)
            .where(
                Artifact.job_id == job_id,
                Artifact.kind == "checkpoint_file",
                Artifact.attempt == attempt,
                Artifact.step == step,
            )
            .returning(Artifact.size, Artifact.key)
        )
        for size, key in session.execute(deleted.execution_options(synchronize_session=False)):
            freed += size
            give_up(session, key, now=now)
    count_bytes(session, job.tenant_id, -freed)


def _update(
    session: Session, job_id: str, lease_token: int, changes: Mapping[str, Any], *, now: datetime
) -> Job:
    job = session.scalars(
        update(Job)
        .where(Job.id == job_id, Job.status == "running", Job.lease_token == lease_token)
        .values({**changes, "updated_at": func.greatest(Job.updated_at, now)})
        .returning(Job)
        .options(WITHOUT_SPEC)
        .execution_options(synchronize_session=False, populate_existing=True)
    ).one_or_none()
    if job is None:
        raise LeaseLostError("The job is no longer this worker's.")
    return job


def _progress_changes(session: Session, events: Sequence[NewEvent], job: Job) -> dict[str, Any]:
    """Columns that the last phase and progress events of a batch set."""
    told = [
        event for event in events if event.type in {"phase", "progress"} and event.data.get("phase") in PHASES
    ]
    if not told:
        return {}
    changes: dict[str, Any] = {}
    has_transfer = select(Job.spec["few_step"].astext.is_not(None)).where(Job.id == job.id)
    progress, few_step = job.progress, session.scalars(has_transfer).one()
    for event in told:
        phase = event.data["phase"]
        done, total = event.data.get("done", 0), event.data.get("total", 0)
        progress = max(progress, overall_progress(phase, done, total, few_step=few_step))
        changes |= {"phase": phase, "eta_seconds": event.data.get("eta_seconds")}
    return changes | {"progress": func.greatest(Job.progress, progress)}


def _with_overall_progress(event: NewEvent, progress: float) -> NewEvent:
    return NewEvent(event.type, {**event.data, "progress": progress}) if event.type == "progress" else event


def _insert_metric_points(session: Session, job_id: str, attempt: int, events: Sequence[NewEvent]) -> None:
    """Write the finite values of the batch's metrics; a value that is no number leaves a gap in its curve.

    A training that goes back does steps again, and what they came to the last time is what counts.
    """
    points = {
        (name, event.data["step"]): float(value)
        for event in events
        if event.type == "metrics"
        for name, value in event.data["values"].items()
        if value is not None and math.isfinite(value)
    }
    if points:
        statement = insert(MetricPoint)
        session.execute(
            statement.on_conflict_do_update(
                index_elements=[column.name for column in MetricPoint.__table__.primary_key],
                set_={"value": statement.excluded.value},
            ),
            [
                {"job_id": job_id, "name": name, "step": step, "attempt": attempt, "value": value}
                for (name, step), value in points.items()
            ],
        )
