"""Requests that create something once, however often they are sent.

A key belongs to the session's tenant; another tenant's equal key is another key. Its record is written in
the transaction that carries the request out, together with the answer. While that transaction is open a
second request with the same key is told so, whichever process it came to; after its commit the second request
gets the first one's answer.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, and_, delete, func, select, tuple_, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from store.errors import IdempotencyConflictError, NotFoundError, RequestInProgressError
from store.models import IdempotencyRecord
from store.tenancy import tenant_of

LIFETIME = timedelta(hours=24)
_FORGOTTEN_AT_ONCE = 1_000
_LOCK_SEED = 0x49644B  # keeps these locks apart from others that are taken by a hash


@dataclass(frozen=True)
class IdempotencyKey:
    """The key that a client sent, and a fingerprint of the request it came with."""

    key: str
    fingerprint: str


@dataclass(frozen=True)
class KeptAnswer:
    """What the first request was answered."""

    status_code: int
    body: str
    location: str | None = None


def begin(session: Session, idempotency: IdempotencyKey, *, now: datetime) -> KeptAnswer | None:
    """Begin to carry out a request, or find the answer that it got before.

    Parameters
    ----------
    session
        The transaction that carries it out. Until it ends no other one can begin with the same key.
    idempotency
        Key and fingerprint.
    now
        Expired records count as absent.

    Returns
    -------
    KeptAnswer or None
        None when the request is to be carried out. `RequestInProgressError` while another one with this key
        is under way; `IdempotencyConflictError` when the key was used with another request.
    """
    lock = func.hashtextextended(f"{tenant_of(session)} {idempotency.key}", _LOCK_SEED)
    if not session.scalar(select(func.pg_try_advisory_xact_lock(lock))):
        raise RequestInProgressError(
            "The first request with this idempotency key is still being worked on. Try again.",
            field="Idempotency-Key",
        )
    return find_answer(session, idempotency, now=now)


def find_answer(session: Session, idempotency: IdempotencyKey, *, now: datetime) -> KeptAnswer | None:
    """Find the answer of an earlier request, as `begin` does, without beginning anything."""
    record = session.scalars(
        select(IdempotencyRecord).where(
            _is_record_of(session, idempotency), IdempotencyRecord.expires_at > now
        )
    ).one_or_none()
    if record is None:
        return None
    _check_fingerprint(record, idempotency)
    if record.status_code is None or record.answer is None:  # of the release before
        return None
    return KeptAnswer(record.status_code, record.answer, record.location)


def keep_answer(
    session: Session, idempotency: IdempotencyKey, answer: KeptAnswer, *, job_id: str | None, now: datetime
) -> None:
    """Write the answer of a request into the record of its key, in the transaction that carries it out.

    Parameters
    ----------
    session
        The transaction that `begin` was called in.
    idempotency
        Key and fingerprint.
    answer
        To be given again. One that holds a secret comes encrypted.
    job_id
        The job that the request was about, if it was about one.
    now
        The record is forgotten 24 hours later.
    """
    values = {
        "fingerprint": idempotency.fingerprint,
        "job_id": job_id,
        "status_code": answer.status_code,
        "answer": answer.body,
        "location": answer.location,
        "created_at": now,
        "expires_at": now + LIFETIME,
    }
    session.execute(
        insert(IdempotencyRecord)
        .values(tenant_id=tenant_of(session), key=idempotency.key, **values)
        .on_conflict_do_update(
            index_elements=[IdempotencyRecord.tenant_id, IdempotencyRecord.key], set_=values
        )
    )


def reserve(session: Session, idempotency: IdempotencyKey, *, job_id: str, now: datetime) -> str:
    """Bind a key to a new job, or find the job that it is bound to.

    Parameters
    ----------
    session
        The transaction that creates the job. The foreign key is checked at its end, so the record may come
        first and make a second request wait.
    idempotency
        Key and fingerprint.
    job_id
        The job about to be created.
    now
        Expired records count as absent.

    Returns
    -------
    str
        ``job_id`` when the key was free, else the id of the job made with it before.
    """
    this = _is_record_of(session, idempotency)
    session.execute(delete(IdempotencyRecord).where(this, IdempotencyRecord.expires_at <= now))
    reserved: str | None = session.scalar(
        insert(IdempotencyRecord)
        .values(
            tenant_id=tenant_of(session),
            key=idempotency.key,
            fingerprint=idempotency.fingerprint,
            job_id=job_id,
            created_at=now,
            expires_at=now + LIFETIME,
        )
        .on_conflict_do_nothing()
        .returning(IdempotencyRecord.job_id)
    )
    if reserved is not None:
        return reserved
    record = session.scalars(select(IdempotencyRecord).where(this)).one()
    _check_fingerprint(record, idempotency)
    if record.job_id is None:
        raise NotFoundError("The job that was made with this idempotency key has been deleted.")
    return record.job_id


def _is_record_of(session: Session, idempotency: IdempotencyKey) -> ColumnElement[bool]:
    return and_(IdempotencyRecord.tenant_id == tenant_of(session), IdempotencyRecord.key == idempotency.key)


def _check_fingerprint(record: IdempotencyRecord, idempotency: IdempotencyKey) -> None:
    if record.fingerprint != idempotency.fingerprint:
        raise IdempotencyConflictError(
            "This idempotency key was used before with another request.", field="Idempotency-Key"
        )


def forget_job(session: Session, job_id: str) -> None:
    """Leave a job that is deleted out of the records, which outlive it."""
    records = update(IdempotencyRecord).where(IdempotencyRecord.job_id == job_id).values(job_id=None)
    session.execute(records.execution_options(synchronize_session=False))


def forget_expired(session: Session, *, now: datetime) -> int:
    """Delete records past their lifetime, some at a time, and say how many there were."""
    this = tuple_(IdempotencyRecord.tenant_id, IdempotencyRecord.key)
    expired = (
        select(IdempotencyRecord.tenant_id, IdempotencyRecord.key)
        .where(IdempotencyRecord.expires_at <= now)
        .order_by(IdempotencyRecord.expires_at)
        .limit(_FORGOTTEN_AT_ONCE)
    )
    deleted = delete(IdempotencyRecord).where(this.in_(expired)).returning(IdempotencyRecord.key)
    return len(session.scalars(deleted.execution_options(synchronize_session=False)).all())
