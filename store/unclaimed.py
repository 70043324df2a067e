"""Objects that no other row speaks of: uploads under way, and what is to be removed.

Every key is written down here before its first byte is stored, and forgotten in the transaction that claims
it. Whatever happens in between, the sweeper finds what was left behind.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import delete, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from store.models import UnclaimedObject

UPLOAD_ENDS = timedelta(hours=24)
"""An upload that has not ended so long after its beginning is given up."""

_KEYS_A_PASS = 100


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
    """Mark some of the keys whose time has come, in no order, as being removed, and return them."""
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
