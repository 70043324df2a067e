"""Migrations with data in the tables, and the release before at work on the new ones."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import UUID

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, Engine, create_engine, text

from store.models import DEFAULT_TENANT_ID, Base
from store.settings import normalise_database_url

OLD_INSERT = """
    INSERT INTO jobs (id, status, progress, queue, teacher, spec, attempt, attempts_used, cancel_requested,
        lease_token, last_sequence, events_position, created_at, updated_at, finished_at,
        lease_expires_at, reason)
    VALUES (gen_random_uuid(), :status, 0, 'cpu', 't', '{}', 1, 0, false, 1, 2, 0, now(), now(),
        CASE WHEN :status IN ('succeeded', 'failed', 'cancelled') THEN now() END,
        CASE WHEN :status = 'running' THEN now() END,
        CASE WHEN :status = 'failed' THEN 'diverged' END)
"""
OLD_CLAIM = """
    UPDATE jobs SET status = 'running', lease_token = lease_token + 1, lease_expires_at = now()
    WHERE status = 'queued'
"""
OLD_STATUSES = ("queued", "running", "succeeded", "failed", "cancelled")


@pytest.fixture
def migrate(empty_database_url: str) -> Callable[[str, str], None]:
    def migrate(step: str, target: str) -> None:
        subprocess.run(
            [sys.executable, "-m", "alembic", step, target],
            cwd=Path(__file__).parents[2],
            env={"DATABASE_URL": empty_database_url},
            check=True,
            capture_output=True,
        )

    return migrate


@pytest.fixture
def database(empty_database_url: str) -> Iterator[Engine]:
    engine = create_engine(normalise_database_url(empty_database_url))
    yield engine
    engine.dispose()


def statuses(connection: Connection) -> list[str]:
    return sorted(connection.execute(text("SELECT status FROM jobs")).scalars())


def test_the_release_before_works_on_the_new_tables_and_back(
    migrate: Callable[[str, str], None], database: Engine
) -> None:
    migrate("upgrade", "0001")
    with database.begin() as connection:
        for status in OLD_STATUSES:
            connection.execute(text(OLD_INSERT), {"status": status})
    migrate("upgrade", "head")
    with database.begin() as connection:
        assert statuses(connection) == sorted(OLD_STATUSES)
        added = (
            "SELECT DISTINCT priority, pause_requested, runtime_s, scratch_attempt, max_runtime_s FROM jobs"
        )
        assert connection.execute(text(added)).all() == [(0, False, 0.0, 0, None)]
        for status in OLD_STATUSES:
            connection.execute(text(OLD_INSERT), {"status": status})
        assert connection.execute(text("SELECT DISTINCT tenant_id FROM jobs")).scalars().all() == [
            UUID(DEFAULT_TENANT_ID)
        ]
        assert connection.execute(text(OLD_CLAIM)).rowcount == 2
        connection.execute(text(OLD_INSERT), {"status": "paused"})
        connection.execute(text("UPDATE jobs SET reason = 'max_runtime' WHERE status = 'cancelled'"))
    migrate("downgrade", "0001")
    with database.begin() as connection:
        assert statuses(connection) == sorted(["queued", *["running"] * 4, *OLD_STATUSES[2:] * 2])
        reasons = connection.execute(text("SELECT DISTINCT reason FROM jobs")).scalars()
        assert set(reasons) == {None, "diverged"}


OLD_IDEMPOTENCY_INSERT = """
    INSERT INTO idempotency_records (key, fingerprint, job_id, created_at, expires_at)
    SELECT :key, 'f', (SELECT id FROM jobs LIMIT 1), now(), now() + interval '1 day'
    ON CONFLICT DO NOTHING RETURNING job_id
"""
OLD_DELETION = "INSERT INTO deleted_jobs (job_id, deleted_at) VALUES (gen_random_uuid(), now())"
MOVE = """
    UPDATE idempotency_records SET tenant_id = (SELECT id FROM tenants WHERE name = 'other')
    WHERE key = 'after'
"""
FILE = """
    INSERT INTO artifacts (job_id, attempt, path, kind, key, size, sha256, created_at)
    SELECT id, 1, :key, 'log', :key, 7, '', now() FROM jobs LIMIT 1
"""


def test_what_there_is_belongs_to_the_default_tenant(
    migrate: Callable[[str, str], None], database: Engine
) -> None:
    migrate("upgrade", "0002")
    with database.begin() as connection:
        connection.execute(text(OLD_INSERT), {"status": "queued"})
        for key in ("a", "b"):
            connection.execute(text(FILE), {"key": key})
        connection.execute(text(OLD_IDEMPOTENCY_INSERT), {"key": "before"})
        connection.execute(text(OLD_DELETION))
    migrate("upgrade", "0003")
    with database.begin() as connection:
        # The release before goes on, and finds a key again that it used before.
        assert connection.execute(text(OLD_IDEMPOTENCY_INSERT), {"key": "before"}).all() == []
        assert len(connection.execute(text(OLD_IDEMPOTENCY_INSERT), {"key": "after"}).all()) == 1
        connection.execute(text(OLD_DELETION))
        for table, rows in (("jobs", 1), ("idempotency_records", 2), ("deleted_jobs", 2)):
            owners = connection.execute(text(f"SELECT tenant_id FROM {table}")).scalars().all()
            assert owners == [UUID(DEFAULT_TENANT_ID)] * rows, table
        tenant = connection.execute(text("SELECT name, bytes_stored FROM tenants")).one()
        assert tuple(tenant) == ("default", 14)
        connection.execute(text("INSERT INTO tenants (id, name) VALUES (gen_random_uuid(), 'other')"))
        connection.execute(text(MOVE))
    migrate("downgrade", "0002")
    with database.begin() as connection:
        assert connection.execute(text("SELECT key FROM idempotency_records")).scalars().all() == ["before"]


def test_the_models_are_what_the_migrations_make(
    migrate: Callable[[str, str], None], database: Engine
) -> None:
    migrate("upgrade", "head")
    with database.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_server_default": False})
        assert compare_metadata(context, Base.metadata) == []
