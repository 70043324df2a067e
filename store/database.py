"""The connection to Postgres.

A transaction is short and holds no network call but its own statements. Times that decide anything are
Postgres's own (`server_now`), so that a host with a wrong clock cannot expire a lease or extend one.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Generic, TypeVar

import sqlalchemy
from psycopg.errors import IdleInTransactionSessionTimeout, ReadOnlySqlTransaction
from sqlalchemy import Engine, event, func, select
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import InterfaceError, InternalError, OperationalError
from sqlalchemy.orm import Session
from sqlalchemy.pool import QueuePool

from store.errors import UnavailableError
from store.settings import Settings
from store.tenancy import TenantSession

__all__ = [
    "Clock",
    "Engine",
    "Page",
    "Session",
    "create_engine",
    "ping",
    "pool_use",
    "server_now",
    "transaction",
]

T = TypeVar("T")

Clock = Callable[[Session], datetime]
"""Tells the time within a transaction."""

# A worker must be able to tell a stalled server from a slow one long before its lease ends.
_CONNECT_ARGUMENTS = {
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    # Probes are sent on idle connections alone: without this one that waits for the acknowledgement of what
    # it sent gives a vanished host up after a quarter of an hour.
    "tcp_user_timeout": 15_000,
    "options": "-c statement_timeout=20s -c lock_timeout=10s"
    " -c idle_in_transaction_session_timeout=30s -c timezone=UTC",
}

CONNECTIONS = 20
"""Connections that a process keeps, once it has needed them; as many of its threads can work with Postgres.

Beyond them a few more are opened and closed again, which takes longer than most of what they are for.
"""

_OVERFLOW = 10


@dataclass(frozen=True)
class Page(Generic[T]):
    """One page of a list.

    Attributes
    ----------
    items
        The entries, in the list's order.
    has_more
        Whether there are entries after the last one.
    next
        Cursor to pass as ``after`` for the page that follows; None on the last page.
    """

    items: list[T]
    has_more: bool
    next: str | None

    @classmethod
    def cut(cls, rows: Sequence[T], limit: int, cursor: Callable[[T], str]) -> "Page[T]":
        """Make a page of rows that were read with one more than it holds, which tells that more follow."""
        items, has_more = list(rows[:limit]), len(rows) > limit
        return cls(items=items, has_more=has_more, next=cursor(items[-1]) if has_more else None)


def create_engine(settings: Settings) -> Engine:
    """Make the pool of connections of this process; it connects on first use."""
    engine = sqlalchemy.create_engine(
        settings.database_url,
        connect_args=_CONNECT_ARGUMENTS,
        hide_parameters=True,  # an error's text goes into the log, and captions and keys must not
        pool_pre_ping=True,
        pool_size=CONNECTIONS,
        max_overflow=_OVERFLOW,
        pool_timeout=10,
    )
    event.listen(engine, "handle_error", _leave_a_standby)
    return engine


def _leave_a_standby(context: ExceptionContext) -> None:
    """Connect anew, all of the pool, where a fail-over has made the server at the other end read-only."""
    if isinstance(context.original_exception, ReadOnlySqlTransaction):
        context.is_disconnect = True


@dataclass(frozen=True)
class PoolUse:
    """Connections of a pool: those at work, those at rest, and the most that it will open."""

    in_use: int
    idle: int
    limit: int


def pool_use(engine: Engine) -> PoolUse:
    """Say how far the pool of this process is used up."""
    pool = engine.pool
    if not isinstance(pool, QueuePool):
        raise TypeError(f"the engine has no pool of a fixed size but a {type(pool).__name__}")
    return PoolUse(in_use=pool.checkedout(), idle=pool.checkedin(), limit=CONNECTIONS + _OVERFLOW)


@contextmanager
def transaction(engine: Engine, *, tenant_id: str | None = None) -> Iterator[Session]:
    """Open a session that commits on success and rolls back on any error.

    Parameters
    ----------
    engine
        The pool of connections.
    tenant_id
        On whose behalf: the session then sees and changes rows of this tenant alone (`store.tenancy`). None
        for what the service does by itself.

    Notes
    -----
    Objects stay readable after the commit. Raises `UnavailableError` when Postgres cannot be reached or
    gives up waiting; the commit may then have happened or not.
    """
    try:
        with TenantSession(engine, tenant_id=tenant_id) as session, session.begin():
            yield session
    except (OperationalError, InterfaceError, sqlalchemy.exc.TimeoutError) as error:
        raise UnavailableError(f"Postgres does not answer: {error.__class__.__name__}") from error
    except InternalError as error:
        raise _refusal(error) from error


def _refusal(error: InternalError) -> Exception:
    match error.orig:
        case IdleInTransactionSessionTimeout():
            return UnavailableError("Postgres ended a transaction in which nothing happened for long.")
        case ReadOnlySqlTransaction():
            return UnavailableError("This Postgres is read-only: another server has taken its place.")
        case _:
            return error


def server_now(session: Session) -> datetime:
    """Time of the running transaction by Postgres's clock."""
    return session.execute(select(func.now())).scalar_one().astimezone(UTC)


def ping(engine: Engine) -> None:
    """Raise `UnavailableError` unless Postgres answers."""
    with transaction(engine) as session:
        session.execute(select(1))
