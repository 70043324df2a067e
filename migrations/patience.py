"""How long migrations wait: not long for a lock that others queue behind, and for ever where nobody does."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

IS_BROKEN = "SELECT 1 FROM pg_index WHERE indexrelid = to_regclass(:name) AND NOT indisvalid"


def limit_waiting(connection: sa.Connection) -> None:
    """Give up on a lock that is not got soon: whoever asks for the table meanwhile waits as well."""
    connection.execute(sa.text("SET lock_timeout = '5s'"))
    connection.execute(sa.text("SET statement_timeout = '10min'"))


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
