"""How long migrations wait: not long for a lock that others queue behind, and for ever where nobody does."""

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import sqlalchemy as sa
from alembic import op

ONE_AT_A_TIME = 0x636F6E64
"""Key of the advisory lock, in each database, of whoever migrates it."""

SECONDS_BETWEEN_TRIES = 1.0
IS_BROKEN = "SELECT 1 FROM pg_index WHERE indexrelid = to_regclass(:name) AND NOT indisvalid"


def limit_waiting(connection: sa.Connection) -> None:
    """Give up on a lock that is not got soon: whoever asks for the table meanwhile waits as well."""
    connection.execute(sa.text("SET lock_timeout = '5s'"))
    connection.execute(sa.text("SET statement_timeout = '10min'"))


@contextmanager
def alone(connection: sa.Connection) -> Iterator[None]:
    """Wait until nobody else migrates the database, and let nobody until the end.

    The server goes on with the statement of a migration whose process was killed, and keeps its lock until
    then: an index that takes hours is not begun anew. To wait in the server would be to hold a snapshot,
    which such an index waits for in its turn.
    """
    told = False
    while not connection.scalar(sa.select(sa.func.pg_try_advisory_lock(ONE_AT_A_TIME))):
        connection.commit()
        if not told:
            logging.getLogger("alembic").info("Waiting for another migration of this database to end.")
            told = True
        time.sleep(SECONDS_BETWEEN_TRIES)
    connection.commit()
    try:
        yield
    finally:
        if not connection.invalidated:
            connection.rollback()
            connection.execute(sa.select(sa.func.pg_advisory_unlock(ONE_AT_A_TIME)))
            connection.commit()


def create_index_concurrently(
    name: str, table: str, columns: Sequence[str | sa.TextClause], *, where: str | None = None
) -> None:
    """Build an index while everybody reads and writes; for the ``upgrade`` of a revision.

    It cannot be part of a transaction, so it commits what the revisions before did. A build that was broken
    off left an index that nothing uses; it is built anew.

    Parameters
    ----------
    name, table, columns
        The index.
    where
        Condition on the rows that are in it.
    """
    with op.get_context().autocommit_block():
        # The build waits for every open transaction, a long dump's too, and nobody waits for the build.
        op.execute("SET lock_timeout = 0")
        op.execute("SET statement_timeout = 0")
        if op.get_bind().scalar(sa.text(IS_BROKEN), {"name": name}):
            # REINDEX would leave one more broken index if it was broken off in its turn.
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
        op.create_index(
            name,
            table,
            list(columns),
            postgresql_where=None if where is None else sa.text(where),
            postgresql_concurrently=True,
            if_not_exists=True,
        )
        limit_waiting(op.get_bind())
