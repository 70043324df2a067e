"""API keys: made, listed, revoked and checked. A key itself is returned once and never stored."""

import hmac
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from store.database import Page
from store.errors import (
    ExpiredApiKeyError,
    InvalidApiKeyError,
    NotFoundError,
)
from store.ids import new_id, parse_cursor, parse_id
from store.key_format import SHOWN_CHARACTERS, digest_of, new_key
from store.models import SCOPES, ApiKey, Scope, Tenant
from store.tenancy import tenant_of

USE_IS_NOTED_EVERY = timedelta(minutes=1)
FARTHEST_EXPIRY = timedelta(days=36_500)
"""Postgres holds times that no Python program can read back; such a row would spoil every list it is in."""
UNKNOWN = "There is no such key, or it was revoked."


@dataclass(frozen=True)
class Caller:
    """Who sends a request: the tenant that a key belongs to, the key, and what it allows."""

    tenant_id: str
    key_id: str
    scopes: frozenset[Scope]


@dataclass(frozen=True)
class Bearer:
    """A caller, and what people call the key and its tenant."""

    caller: Caller
    key_name: str
    tenant_name: str


@dataclass(frozen=True)
class CreatedKey:
    """A key at the only moment at which it is known, and its row."""

    key: str
    row: ApiKey


def create_key(
    session: Session,
    *,
    name: str,
    scopes: Iterable[Scope],
    pepper: str,
    now: datetime,
    expires_at: datetime | None = None,
    created_by: str | None = None,
) -> CreatedKey:
    """Make a key of the session's tenant.

    Parameters
    ----------
    session
        An open transaction.
    name
        What it is for, in its owner's words.
    scopes
        What it allows; that its maker may give so much is for the caller to see to.
    pepper
        The installation's secret.
    now
        Time of its making.
    expires_at
        It is refused from then on; never by default. At most `FARTHEST_EXPIRY` ahead.
    created_by
        Id of the key that asks; None for an operator.
    """
    key = new_key()
    row = ApiKey(
        id=new_id(now),
        tenant_id=tenant_of(session),
        name=name,
        shown=key[:SHOWN_CHARACTERS],
        digest=digest_of(key, pepper),
        scopes=[scope for scope in SCOPES if scope in set(scopes)],
        created_by=created_by,
        created_at=now,
        expires_at=expires_at,
    )
    session.add(row)
    session.flush()
    return CreatedKey(key, row)


def list_keys(session: Session, *, after: str | None = None, limit: int = 20) -> Page[ApiKey]:
    """List keys, revoked ones too, the newest first."""
    query = select(ApiKey).order_by(ApiKey.id.desc()).limit(limit + 1)
    if after is not None:
        query = query.where(ApiKey.id < parse_cursor(after))
    return Page.cut(list(session.scalars(query)), limit, lambda key: key.id)


def revoke_key(session: Session, *, key_id: str, now: datetime) -> str:
    """Revoke a key for good and return its id as it is written here; `NotFoundError` when there is none.

    Revoking it again changes nothing.
    """
    revoked: str | None = session.scalar(
        update(ApiKey)
        .where(ApiKey.id == parse_id(key_id, "key"))
        .values(revoked_at=func.coalesce(ApiKey.revoked_at, now))
        .returning(ApiKey.id)
        .execution_options(synchronize_session=False)
    )
    if revoked is None:
        raise NotFoundError("There is no such key.")
    return revoked


def find_caller(session: Session, *, key: str, pepper: str, now: datetime) -> Caller:
    """Check a well-formed key and say whose it is; note that it was used, once a minute at most.

    The row is looked up by a digest that nobody can compute without the pepper, so how long the look-up takes
    says nothing about the keys that exist; the comparison then takes the same time wherever digests differ.

    Raises
    ------
    InvalidApiKeyError
        If there is no such key, or it was revoked.
    ExpiredApiKeyError
        If its time is over.
    """
    digest = digest_of(key, pepper)
    row = session.scalars(select(ApiKey).where(ApiKey.digest == digest)).one_or_none()
    if row is None or not hmac.compare_digest(row.digest, digest):
        raise InvalidApiKeyError(UNKNOWN)
    return _caller_of(session, row, now)


def find_bearer(session: Session, *, key_id: str, now: datetime) -> Bearer:
    """Check a key that its bearer has shown before, by its id; errors as those of `find_caller`."""
    query = select(ApiKey, Tenant.name).join(Tenant, Tenant.id == ApiKey.tenant_id)
    found = session.execute(query.where(ApiKey.id == key_id)).one_or_none()
    if found is None:
        raise InvalidApiKeyError(UNKNOWN)
    row, tenant_name = found
    return Bearer(_caller_of(session, row, now), row.name, tenant_name)


def _caller_of(session: Session, row: ApiKey, now: datetime) -> Caller:
    """Say whose a key is, unless it is good no more."""
    if row.revoked_at is not None:
        raise InvalidApiKeyError(UNKNOWN)
    if row.expires_at is not None and row.expires_at <= now:
        raise ExpiredApiKeyError(f"The key has expired at {row.expires_at:%Y-%m-%dT%H:%M:%SZ}.")
    if row.last_used_at is None or row.last_used_at < now - USE_IS_NOTED_EVERY:
        _note_use(session, row, now)
    return Caller(row.tenant_id, row.id, frozenset(row.scopes))


def _note_use(session: Session, row: ApiKey, now: datetime) -> None:
    """Write the time of use; of several requests at once the first one does, and none waits for another."""
    free = select(ApiKey.id).where(ApiKey.id == row.id).with_for_update(skip_locked=True)
    stale = ApiKey.last_used_at.is_(None) | (ApiKey.last_used_at < now - USE_IS_NOTED_EVERY)
    session.execute(
        update(ApiKey)
        .where(ApiKey.id.in_(free), stale)
        .values(last_used_at=now)
        .execution_options(synchronize_session=False)
    )
