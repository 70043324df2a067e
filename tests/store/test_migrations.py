"""Migrations with data in the tables, and the release before at work on the new ones."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, Engine, create_engine, inspect, text

from migrations.patience import ONE_AT_A_TIME
from store.database import server_now, transaction
from store.interactive_capacity import interactive_capacity
from store.models import DEFAULT_TENANT_ID, Base
from store.settings import normalise_database_url
from store.workers import Announcement, announce

DRAWER = Announcement("new:3", "interactive", "new", "interactive", "0.1.0", "a processor", 2, None)

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


def test_one_migration_waits_for_another_to_end(empty_database_url: str, database: Engine) -> None:
    with database.connect() as other:
        other.execute(text("SELECT pg_advisory_lock(:key)"), {"key": ONE_AT_A_TIME})
        other.commit()
        waiting = subprocess.Popen(
            [sys.executable, "-m", "alembic", "upgrade", "head"],
            cwd=Path(__file__).parents[2],
            env={"DATABASE_URL": empty_database_url},
            stderr=subprocess.PIPE,
            text=True,
        )
        with waiting:
            assert any("Waiting for another migration" in line for line in waiting.stderr or ())
            assert not inspect(database).get_table_names()
            other.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": ONE_AT_A_TIME})
            other.commit()
            assert "Running upgrade" in waiting.communicate()[1]
    assert waiting.returncode == 0


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


DRAWER_BEAT_BEFORE = """
    INSERT INTO interactive_workers (name, seen_at) VALUES (:name, now())
    ON CONFLICT (name) DO UPDATE SET seen_at = excluded.seen_at
"""
TRAINER_BEAT_BEFORE = """
    INSERT INTO workers (name, host, queue, release, device, device_count, started_at, beat_at)
    VALUES (:name, 'h', 'cpu', '0.1.0', 'a processor', 2, now(), now())
    ON CONFLICT (name) DO UPDATE SET beat_at = excluded.beat_at
"""


def test_workers_of_two_releases_see_each_other_in_both_lists(
    migrate: Callable[[str, str], None], database: Engine, now: datetime
) -> None:
    migrate("upgrade", "0008")
    with database.begin() as connection:
        connection.execute(text(DRAWER_BEAT_BEFORE), {"name": "old:1"})
    migrate("upgrade", "0009")
    for _ in range(2):  # a second beat renews
        with database.begin() as connection:
            connection.execute(text(DRAWER_BEAT_BEFORE), {"name": "old:1"})
            connection.execute(text(TRAINER_BEAT_BEFORE), {"name": "old:2"})
        with transaction(database) as session:
            announce(session, DRAWER, started_at=now, now=server_now(session))
    with database.begin() as connection:
        listed = connection.execute(text("SELECT name, role, host FROM workers ORDER BY name")).all()
        assert [tuple(row) for row in listed] == [
            ("new:3", "interactive", "new"),
            ("old:1", "interactive", "old"),
            ("old:2", "training", "h"),
        ]
        beats = "SELECT name, seen_at FROM interactive_workers ORDER BY name"
        same = "SELECT name, beat_at FROM workers WHERE role = 'interactive' ORDER BY name"
        assert connection.execute(text(beats)).all() == connection.execute(text(same)).all()
    with transaction(database) as session:
        capacity = interactive_capacity(session, now=server_now(session), lease_seconds=20)
        assert (capacity.workers, capacity.waiting_reason) == (2, None)
    migrate("downgrade", "0008")
    with database.begin() as connection:
        assert connection.execute(text("SELECT name FROM workers")).scalars().all() == ["old:2"]
        connection.execute(text(DRAWER_BEAT_BEFORE), {"name": "old:1"})


LEFT_TO_THE_RELEASE_BEFORE = {"interactive_workers"}


def test_the_models_are_what_the_migrations_make(
    migrate: Callable[[str, str], None], database: Engine
) -> None:
    def is_ours(name: str | None, kind: str, _: Any) -> bool:
        return kind != "table" or name not in LEFT_TO_THE_RELEASE_BEFORE

    migrate("upgrade", "head")
    with database.connect() as connection:
        opts = {"compare_server_default": False, "include_name": is_ours}
        context = MigrationContext.configure(connection, opts=opts)
        assert compare_metadata(context, Base.metadata) == []
