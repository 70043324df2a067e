"""Requests that create something once, however often they are sent.

A key belongs to the session's tenant; another tenant's equal key is another key. The record of a key is
written in the transaction that creates the job. A second request with the same key waits for the first one's
commit, then gets the first one's job.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import and_, delete, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from store.errors import IdempotencyConflictError
from store.models import IdempotencyRecord
from store.tenancy import tenant_of

LIFETIME = timedelta(hours=24)


@dataclass(frozen=True)
class IdempotencyKey:
    """The key that a client sent, and a fingerprint of the request it came with."""

    key: str
    fingerprint: str


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
    tenant_id = tenant_of(session)
    this = and_(IdempotencyRecord.tenant_id == tenant_id, IdempotencyRecord.key == idempotency.key)
    session.execute(delete(IdempotencyRecord).where(this, IdempotencyRecord.expires_at <= now))
    reserved: str | None = session.scalar(
        insert(IdempotencyRecord)
        .values(
            tenant_id=tenant_id,
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
    if record.fingerprint != idempotency.fingerprint:
        raise IdempotencyConflictError(
            "This idempotency key was used before with another request body.", field="Idempotency-Key"
        )
    return record.job_id


def forget_expired(session: Session, *, now: datetime) -> int:
    """Delete the records past their lifetime and say how many there were."""
    return len(
        session.scalars(
            delete(IdempotencyRecord)
            .where(IdempotencyRecord.expires_at <= now)
            .returning(IdempotencyRecord.key)
        ).all()
    )
