"""Indexes that a migration builds beside the running service, however long that takes."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import Connection, Engine, create_engine, text
from sqlalchemy.exc import OperationalError

from migrations.patience import create_index_concurrently, limit_waiting
from store.settings import normalise_database_url

INDEXES = (
    "SELECT relname, indisvalid FROM pg_index JOIN pg_class ON oid = indexrelid WHERE relname LIKE 'ix%'"
)
BUILT_FOR_LONG = """
    SELECT 1 FROM pg_stat_activity
    WHERE query LIKE 'CREATE INDEX CONCURRENTLY%' AND clock_timestamp() - query_start > interval '700ms'
"""
# Shorter than that, and longer than all that comes before the wait takes on a busy machine.
IMPATIENCE = "SET statement_timeout = '500ms'"


@pytest.fixture
def database(empty_database_url: str) -> Iterator[Engine]:
    engine = create_engine(normalise_database_url(empty_database_url))
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE rows (number int)"))
    yield engine
    engine.dispose()


@pytest.fixture
def writer(database: Engine) -> Iterator[Connection]:
    """Has written to the table, and not committed."""
    with database.connect() as connection:
        connection.execute(text("INSERT INTO rows VALUES (1)"))
        yield connection


def build(database: Engine) -> list[str]:
    """Build the index as a migration does; the limits of the session afterwards."""
    with database.connect() as connection:
        connection.execute(text(IMPATIENCE))
        connection.commit()
        context = MigrationContext.configure(connection)
        with Operations.context(context), context.begin_transaction():
            create_index_concurrently("ix_rows", "rows", ["number"], where="number > 0")
        return limits(connection)


def limits(connection: Connection) -> list[str]:
    names = ("lock_timeout", "statement_timeout")
    return [connection.execute(text(f"SHOW {name}")).scalar_one() for name in names]


def indexes(database: Engine) -> list[tuple[Any, ...]]:
    with database.connect() as connection:
        return [tuple(row) for row in connection.execute(text(INDEXES))]


def test_a_build_waits_for_what_was_begun_before_for_as_long_as_that_takes(
    database: Engine, writer: Connection, eventually: Callable[..., Any]
) -> None:
    with ThreadPoolExecutor() as threads, database.connect() as onlooker:
        # A transaction sees one state of the activity.
        onlooker.execution_options(isolation_level="AUTOCOMMIT")
        limits_after = threads.submit(build, database)
        try:
            eventually(lambda: limits_after.done() or onlooker.execute(text(BUILT_FOR_LONG)).one_or_none())
        finally:
            writer.commit()
        assert limits_after.result() == ["5s", "10min"]
    assert indexes(database) == [("ix_rows", True)]
    with database.connect() as connection:
        limit_waiting(connection)
        assert limits(connection) == ["5s", "10min"]


def test_a_build_that_was_broken_off_is_made_anew_and_leaves_nothing(
    database: Engine, writer: Connection, eventually: Callable[..., Any]
) -> None:
    with (
        ThreadPoolExecutor() as threads,
        database.connect().execution_options(isolation_level="AUTOCOMMIT") as doomed,
    ):
        backend = doomed.execute(text("SELECT pg_backend_pid()")).scalar_one()
        build_ends = threads.submit(
            doomed.execute, text("CREATE INDEX CONCURRENTLY ix_rows ON rows (number)")
        )
        try:
            eventually(lambda: indexes(database))
        finally:
            writer.execute(text("SELECT pg_cancel_backend(:backend)"), {"backend": backend})
        with pytest.raises(OperationalError, match="canceling statement"):
            build_ends.result()
    assert indexes(database) == [("ix_rows", False)]
    writer.commit()
    build(database)
    assert indexes(database) == [("ix_rows", True)]
    build(database)
    assert indexes(database) == [("ix_rows", True)]
