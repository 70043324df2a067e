"""Objects that no other row speaks of: uploads under way, and what is to be removed.

Every key is written down here before its first byte is stored, and forgotten in the transaction that claims
it. Whatever happens in between, the sweeper finds what was left behind.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import datetime, timedelta

from sqlalchemy import Engine, delete, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.orm import Session

from store.errors import UnavailableError
from store.models import UnclaimedObject

UPLOAD_ENDS = timedelta(hours=24)
"""An upload that has not ended so long after its beginning is given up."""

_KEYS_A_PASS = 100
_REMOVALS = 0x436F6E65  # any number that nothing else in this database locks


def announce(session: Session, key: str, *, now: datetime) -> None:
    """Write down a key that is about to be uploaded to."""
    session.add(UnclaimedObject(key=key, remove_at=now + UPLOAD_ENDS))
    session.flush()


def claim(session: Session, key: str) -> bool:
    """Forget a key because another row speaks of it from now on; False when it is already being removed."""
    claimed = (
        delete(UnclaimedObject)
        .where(UnclaimedObject.key == key, UnclaimedObject.removing.is_(False))
        .returning(UnclaimedObject.key)
    )
    return session.scalar(claimed) is not None


def give_up(session: Session, key: str, *, now: datetime) -> None:
    """Let the sweeper remove what lies under a key."""
    session.execute(
        insert(UnclaimedObject)
        .values(key=key, remove_at=now, removing=False)
        .on_conflict_do_update(index_elements=["key"], set_={"remove_at": now})
    )


def hasten(session: Session, key: str, *, now: datetime) -> None:
    """Let the sweeper remove an upload at once that has not been claimed; one that has is left alone."""
    session.execute(update(UnclaimedObject).where(UnclaimedObject.key == key).values(remove_at=now))


def take_due(session: Session, *, now: datetime) -> Sequence[str]:
    """Mark some of the keys whose time has come, in no order, as being removed, and return them.

    None while removals are held.
    """
    if not session.scalar(select(func.pg_try_advisory_xact_lock_shared(_REMOVALS))):
        return []
    due = (
        select(UnclaimedObject.key)
        .where(UnclaimedObject.remove_at <= now)
        .order_by(func.random())
        .limit(_KEYS_A_PASS)
        .with_for_update(skip_locked=True)
    )
    marked = update(UnclaimedObject).where(UnclaimedObject.key.in_(due)).values(removing=True)
    return sorted(session.scalars(marked.returning(UnclaimedObject.key)))


def forget(session: Session, keys: Sequence[str]) -> None:
    """Strike keys off whose objects are gone."""
    session.execute(delete(UnclaimedObject).where(UnclaimedObject.key.in_(keys)))


@contextmanager
def removals_held(engine: Engine) -> Iterator[None]:
    """Have sweepers take no more keys before the ``with`` block ends, so that a backup finds the objects.

    It is a lock that lasts as long as its connection: where that breaks, removals go on.
    """
    with ExitStack() as stack:
        try:
            connection = stack.enter_context(engine.connect()).execution_options(isolation_level="AUTOCOMMIT")
            stack.callback(connection.invalidate)
            connection.execute(select(func.pg_advisory_lock(_REMOVALS)))
        except (OperationalError, InterfaceError) as error:
            raise UnavailableError("Postgres does not answer, or another backup is being made.") from error
        yield
