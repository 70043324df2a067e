"""Pictures that somebody waits for: the only module that moves a generation from a status to another.

As of a job, every move is one guarded UPDATE, and what a worker writes is guarded by its lease token. A
generation differs in what it is worth: it is drawn once or not at all. Whoever asked for it must go on asking
(`keep_watched`); one that is not watched any more is neither begun nor finished. A cancelled one has ended at
once, and its worker finds its lease lost.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any, Literal, TypedDict, cast

from sqlalchemy import ColumnElement, and_, delete, func, or_, select, true, update
from sqlalchemy.orm import Session, aliased

from store.errors import GenerationEndedError, LeaseLostError, NotFoundError, QuotaExceededError
from store.generation_endings import GenerationEnding, generation_ending
from store.ids import new_id, parse_id
from store.models import Generation, GenerationStatus
from store.quotas import NO_LIMITS, Quotas, lock_tenant
from store.tenancy import tenant_of
from store.unclaimed import claim as claim_object
from store.unclaimed import give_up

ALLOWED_MOVES: Mapping[GenerationStatus, frozenset[GenerationStatus]] = {
    "queued": frozenset({"running", "cancelled", "expired"}),
    "running": frozenset({"queued", "succeeded", "failed", "cancelled", "expired"}),
    "succeeded": frozenset(),
    "failed": frozenset(),
    "cancelled": frozenset(),
    "expired": frozenset(),
}
OPEN: frozenset[GenerationStatus] = frozenset({"queued", "running"})
GENERATIONS_PREFIX = "generations/"
WATCH_SLACK = timedelta(seconds=2)
"""A reader who asks again within this time costs no write."""

_NOT_WATCHED = generation_ending("not_watched")
_WORKER_LOST = generation_ending("worker_lost")
_CANCELLED = generation_ending("cancelled_by_user")
_SWEPT_A_PASS = 200


class Drawing(TypedDict):
    """Which model draws, and how.

    A student is the one that attempt ``attempt`` of job ``job_id`` exported. ``teacher_revision`` is the
    teacher that the job was done with, where its result says so.
    """

    model: Literal["teacher", "student"]
    job_id: str
    attempt: int
    teacher: str
    teacher_revision: str | None
    name: str
    sampler: str
    steps: int
    guidance_scale: float


class Picture(TypedDict):
    """A drawn picture that is wholly stored; it joins its drawing."""

    key: str
    size: int
    sha256: str
    width: int
    height: int
    seconds: float
    load_seconds: float


@dataclass(frozen=True)
class GenerationClaim:
    """A worker's right to draw a generation, until its lease ends."""

    generation_id: str
    tenant_id: str
    lease_token: int
    prompt: str
    seed: int
    drawings: Sequence[Drawing]


def create_generation(
    session: Session,
    *,
    job_id: str,
    prompt: str,
    seed: int,
    drawings: Sequence[Drawing],
    now: datetime,
    watch_seconds: float,
    quotas: Quotas = NO_LIMITS,
) -> Generation:
    """Write a queued generation of the session's tenant.

    Parameters
    ----------
    session
        An open transaction; the caller rings the queue's bell after it commits.
    job_id
        The job that it was asked of.
    prompt, seed
        What all its models draw.
    drawings
        Its models.
    now
        Time of creation.
    watch_seconds
        Whoever asked is taken to wait for so long.
    quotas
        Limits of tenants that have none of their own.

    Raises
    ------
    QuotaExceededError
        If as many of the tenant's wait or are drawn as may.
    """
    _check_quota(session, quotas, now)
    generation = Generation(
        id=new_id(now),
        tenant_id=tenant_of(session),
        job_id=job_id,
        status="queued",
        prompt=prompt,
        seed=seed,
        drawings=[dict(drawing) for drawing in drawings],
        watched_until=now + timedelta(seconds=watch_seconds),
        created_at=now,
    )
    session.add(generation)
    session.flush()
    return generation


def _check_quota(session: Session, defaults: Quotas, now: datetime) -> None:
    tenant = lock_tenant(session, tenant_of(session))
    limit = defaults.of(tenant).open_generations
    if limit is None:
        return
    opened = and_(Generation.tenant_id == tenant.id, or_(_waits(now), Generation.status == "running"))
    present = session.scalar(select(func.count(Generation.id)).where(opened)) or 0
    if present >= limit:
        raise QuotaExceededError(
            f"{present} generations of tenant {tenant.name} wait or are being drawn, and {limit} may. "
            "Wait until one has ended, or cancel one.",
            quota="open_generations",
            limit=limit,
            present=present,
        )


def _waits(now: datetime) -> ColumnElement[bool]:
    """Condition on a generation that it is to be drawn and somebody waits for it."""
    return and_(Generation.status == "queued", Generation.watched_until > now)


def get_generation(session: Session, generation_id: str) -> Generation:
    """Read a generation; `NotFoundError` when the tenant has none of that id."""
    return _get(session, generation_id, to_move=False)


def keep_watched(session: Session, generation_id: str, *, until: datetime) -> None:
    """Note that somebody waits for a generation until a time; nothing that a reader can see changes."""
    session.execute(
        update(Generation)
        .where(
            Generation.id == parse_id(generation_id, "generation"),
            Generation.status.in_(OPEN),
            Generation.watched_until < until - WATCH_SLACK,
        )
        .values(watched_until=until)
        .execution_options(synchronize_session=False)
    )


def claim_next_generation(
    session: Session, *, worker: str, now: datetime, lease_seconds: float
) -> GenerationClaim | None:
    """Take the generation whose turn it is: tenants in turn, of each the oldest that somebody waits for.

    Returns
    -------
    GenerationClaim or None
        None when none is to be drawn.
    """
    other = aliased(Generation)
    last_served = (
        select(func.max(other.started_at)).where(other.tenant_id == Generation.tenant_id).scalar_subquery()
    )
    generation_id = session.scalar(
        select(Generation.id)
        .where(_waits(now))
        .order_by(last_served.nulls_first(), Generation.id)
        .limit(1)
        .with_for_update(of=Generation, skip_locked=True)
    )
    if generation_id is None:
        return None
    taken = _move(
        session,
        generation_id,
        "queued",
        "running",
        now=now,
        values={
            "worker": worker,
            "lease_token": Generation.lease_token + 1,
            "lease_expires_at": now + timedelta(seconds=lease_seconds),
            "started_at": now,
        },
    )
    if taken is None:
        return None
    return GenerationClaim(
        generation_id=taken.id,
        tenant_id=taken.tenant_id,
        lease_token=taken.lease_token,
        prompt=taken.prompt,
        seed=taken.seed,
        drawings=cast(list[Drawing], taken.drawings),
    )


def extend_lease(
    session: Session, *, generation_id: str, lease_token: int, now: datetime, lease_seconds: float
) -> None:
    """Tell that a worker still draws.

    Raises
    ------
    LeaseLostError
        If it shall not: the generation was cancelled or deleted, nobody waits for it, or the lease ended.
    """
    expires_at = now + timedelta(seconds=lease_seconds)
    held = session.scalar(
        update(Generation)
        .where(_is_held(generation_id, lease_token), Generation.watched_until > now)
        .values(lease_expires_at=expires_at)
        .returning(Generation.id)
        .execution_options(synchronize_session=False)
    )
    if held is None:
        raise LeaseLostError("The generation is no longer this worker's, or nobody waits for it.")


def add_picture(
    session: Session, *, generation_id: str, lease_token: int, position: int, picture: Picture
) -> None:
    """Give a drawing its picture, whose object was announced and is wholly stored.

    Raises
    ------
    LeaseLostError
        If the generation is not the caller's any more; the object then stays unclaimed.
    """
    held = session.scalars(
        select(Generation)
        .where(_is_held(generation_id, lease_token))
        .with_for_update()
        .execution_options(populate_existing=True)
    ).one_or_none()
    if held is None or not claim_object(session, picture["key"]):
        raise LeaseLostError("The generation is no longer this worker's.")
    drawings = [dict(each) for each in held.drawings]
    drawings[position] |= picture
    held.drawings = drawings
    held.version += 1
    session.flush()


def finish_generation(session: Session, *, generation_id: str, lease_token: int, now: datetime) -> None:
    """Move a generation that has all its pictures to its good end; `LeaseLostError` as of `add_picture`."""
    _move_under_lease(session, generation_id, lease_token, "succeeded", now=now)


def fail_generation(
    session: Session, *, generation_id: str, lease_token: int, ending: GenerationEnding, now: datetime
) -> None:
    """End a generation that cannot be drawn; the pictures that it has stay."""
    _move_under_lease(session, generation_id, lease_token, "failed", now=now, ending=ending)


def release_generation(session: Session, *, generation_id: str, lease_token: int, now: datetime) -> None:
    """Give a generation back to the queue because its worker stops; another begins it anew."""
    released = _move_under_lease(session, generation_id, lease_token, "queued", now=now)
    _strip_pictures(session, released, now=now)


def cancel_generation(session: Session, *, generation_id: str, now: datetime) -> Generation:
    """End a generation that nobody wants any more, drawn or not.

    Returns
    -------
    Generation
        The generation afterwards. Cancelling it again changes nothing; `GenerationEndedError` when it ended
        otherwise.
    """
    found = _get(session, generation_id, to_move=True)
    if found.status in OPEN:
        _move(session, found.id, found.status, "cancelled", now=now, ending=_CANCELLED)
    elif found.status != "cancelled":
        raise GenerationEndedError(f"The generation has already ended: it is {found.status}.")
    return found


def delete_generation(session: Session, *, generation_id: str, now: datetime) -> None:
    """Delete a generation, drawn or not; its pictures follow soon after."""
    this = Generation.id == parse_id(generation_id, "generation")
    if not _delete(session, this, now=now):
        raise NotFoundError("There is no such generation.")


def expire_generations(session: Session, *, now: datetime) -> list[str]:
    """End what nobody waits for, and what a worker had that was lost.

    Returns
    -------
    list of str
        Ids of what has ended by this.
    """
    unwatched = and_(Generation.status.in_(OPEN), Generation.watched_until <= now)
    lost = and_(Generation.status == "running", Generation.lease_expires_at < now)
    rows = session.scalars(
        select(Generation)
        .where(or_(unwatched, lost))
        .order_by(Generation.id)
        .with_for_update(skip_locked=True)
    ).all()
    for row in rows:
        is_lost = row.status == "running" and row.watched_until > now
        target: GenerationStatus = "failed" if is_lost else "expired"
        ending = _WORKER_LOST if is_lost else _NOT_WATCHED
        _move(session, row.id, row.status, target, now=now, ending=ending)
    return [row.id for row in rows]


def remove_old_generations(session: Session, *, now: datetime, keep_seconds: float) -> list[str]:
    """Delete what ended long ago; the sweeper removes the pictures. The ids."""
    old = (
        select(Generation.id)
        .where(Generation.finished_at < now - timedelta(seconds=keep_seconds))
        .order_by(Generation.finished_at)
        .limit(_SWEPT_A_PASS)
        .with_for_update(skip_locked=True)
    )
    return _delete(session, Generation.id.in_(old), now=now)


def count_waiting(session: Session, *, now: datetime) -> int:
    """Count the generations that a worker should take."""
    return session.scalar(select(func.count(Generation.id)).where(_waits(now))) or 0


def picture_key(generation_id: str, lease_token: int, position: int) -> str:
    """Key of a picture; another worker that draws the same writes to another key."""
    return f"{GENERATIONS_PREFIX}{generation_id}/{lease_token}-{position}.png"


def _get(session: Session, generation_id: str, *, to_move: bool) -> Generation:
    """Read a generation, and keep its status as it is for the transaction that is to move it."""
    query = select(Generation).where(Generation.id == parse_id(generation_id, "generation"))
    if to_move:
        query = query.with_for_update()
    found = session.scalars(query.execution_options(populate_existing=True)).one_or_none()
    if found is None:
        raise NotFoundError("There is no such generation.")
    return found


def _is_held(generation_id: str, lease_token: int) -> ColumnElement[bool]:
    return and_(
        Generation.id == generation_id, Generation.status == "running", Generation.lease_token == lease_token
    )


def _delete(session: Session, which: ColumnElement[bool], *, now: datetime) -> list[str]:
    gone = session.execute(
        delete(Generation)
        .where(which)
        .returning(Generation.id, Generation.drawings)
        .execution_options(synchronize_session=False)
    ).all()
    for row in gone:
        _give_up_pictures(session, row.drawings, now=now)
    return [row.id for row in gone]


def _strip_pictures(session: Session, generation: Generation, *, now: datetime) -> None:
    """Take the pictures back of a generation that is to be drawn anew."""
    _give_up_pictures(session, generation.drawings, now=now)
    generation.drawings = [
        {name: each[name] for name in Drawing.__annotations__} for each in generation.drawings
    ]
    session.flush()


def _give_up_pictures(session: Session, drawings: Sequence[Mapping[str, Any]], *, now: datetime) -> None:
    for drawing in drawings:
        if "key" in drawing:
            give_up(session, drawing["key"], now=now)


def _move_under_lease(
    session: Session,
    generation_id: str,
    lease_token: int,
    target: GenerationStatus,
    *,
    now: datetime,
    ending: GenerationEnding = GenerationEnding(),  # noqa: B008  # immutable
) -> Generation:
    guard = Generation.lease_token == lease_token
    moved = _move(session, generation_id, "running", target, now=now, guard=guard, ending=ending)
    if moved is None:
        raise LeaseLostError("The generation is no longer this worker's.")
    return moved


def _move(
    session: Session,
    generation_id: str,
    source: GenerationStatus,
    target: GenerationStatus,
    *,
    now: datetime,
    guard: ColumnElement[bool] | None = None,
    ending: GenerationEnding = GenerationEnding(),  # noqa: B008  # immutable
    values: Mapping[str, Any] | None = None,
) -> Generation | None:
    """Move a generation if it is in ``source`` and the guard holds; the one statement that sets a status."""
    if target not in ALLOWED_MOVES[source]:
        raise ValueError(f"{source} → {target} is not an allowed move")
    changes: dict[str, Any] = {
        "status": target,
        "version": Generation.version + 1,
        "lease_expires_at": None,
        "finished_at": None if target in OPEN else now,
        **asdict(ending),
        **(values or {}),
    }
    return session.scalars(
        update(Generation)
        .where(
            Generation.id == generation_id, Generation.status == source, true() if guard is None else guard
        )
        .values(changes)
        .returning(Generation)
        .execution_options(synchronize_session=False, populate_existing=True)
    ).one_or_none()
