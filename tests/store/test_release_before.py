"""A database that grew from the first revision, and the statements of the first release on the newest tables.

The statements are those that the first release sends, as text: what it inserts, claims, beats, records and
reads. They must work, and what they write must be whole to the release that is at work beside it.
"""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, create_engine, text

from store.settings import normalise_database_url

REPOSITORY = Path(__file__).parents[2]
SUBMIT = (
    """
    INSERT INTO jobs (id, status, progress, queue, teacher, spec, attempt, attempts_used, cancel_requested,
        lease_token, last_sequence, events_position, hinted_at, created_at, updated_at)
    VALUES (:id, 'queued', 0, 'cpu', 'emoji-64', '{"teacher": "emoji-64"}', 0, 0, false,
        0, 1, 0, now(), now(), now())
    """,
    """
    INSERT INTO job_transitions (job_id, sequence, status, reason, attempt, at)
    VALUES (:id, 1, 'queued', NULL, 0, now())
    """,
    """
    INSERT INTO job_events (job_id, sequence, attempt, at, type, data)
    VALUES (:id, 1, 0, now(), 'status', '{"status": "queued", "attempt": 0}')
    """,
)
RESERVE = """
    INSERT INTO idempotency_records (key, fingerprint, job_id, created_at, expires_at)
    VALUES (:key, 'f', :id, now(), now() + interval '1 day') ON CONFLICT DO NOTHING RETURNING job_id
"""
CLAIM = """
    UPDATE jobs SET status = 'running', worker = 'w', attempt = attempt + 1, lease_token = lease_token + 1,
        lease_expires_at = now() + interval '1 minute', started_at = coalesce(started_at, now()), phase =
        NULL, eta_seconds = NULL, events_position = 0, last_sequence = last_sequence + 1, updated_at = now()
    WHERE id = :id AND status = 'queued' RETURNING lease_token
"""
HEARTBEAT = """
    UPDATE jobs SET lease_expires_at = now() + interval '1 minute', updated_at = now()
    WHERE id = :id AND status = 'running' AND lease_token = :token RETURNING cancel_requested
"""
RECORD = (
    """
    UPDATE jobs SET events_position = 10, last_sequence = last_sequence + 1, phase = 'training', progress =
    0.5 WHERE id = :id AND status = 'running' AND lease_token = :token
    """,
    """
    INSERT INTO job_events (job_id, sequence, attempt, at, type, data)
    SELECT id, last_sequence, attempt, now(), 'metrics', '{"step": 1, "values": {"loss": 0.5}}' FROM jobs
    WHERE id = :id
    """,
    """
    INSERT INTO metric_points (job_id, name, step, attempt, value) VALUES (:id, 'loss', 1, 1, 0.5)
    ON CONFLICT DO NOTHING
    """,
    """
    INSERT INTO artifacts (job_id, attempt, path, kind, step, key, size, sha256, created_at)
    VALUES (:id, 1, 'student.zip', 'student_archive', NULL, 'jobs/' || gen_random_uuid(), 3, 'abc', now())
    """,
)
FINISH = """
    UPDATE jobs SET status = 'succeeded', result = '{"a": 1}', progress = 1, eta_seconds = 0,
        lease_expires_at = NULL, finished_at = now(), updated_at = now(), last_sequence = last_sequence + 1
    WHERE id = :id AND status = 'running' AND lease_token = :token RETURNING id
"""
READS = (
    "SELECT id, status, phase, reason, message, hint, progress, eta_seconds, queue, teacher, spec, result,"
    " attempt, attempts_used, cancel_requested, worker, lease_token, lease_expires_at, last_sequence,"
    " events_position, hinted_at, created_at, updated_at, started_at, finished_at FROM jobs WHERE id = :id",
    "SELECT job_id, sequence, status, reason, attempt, at FROM job_transitions WHERE job_id = :id",
    "SELECT job_id, sequence, attempt, at, type, data FROM job_events WHERE job_id = :id ORDER BY sequence",
    "SELECT job_id, name, step, attempt, value FROM metric_points WHERE job_id = :id",
    "SELECT job_id, attempt, path, kind, step, key, size, sha256 FROM artifacts WHERE job_id = :id",
    "SELECT key, fingerprint, job_id, created_at, expires_at FROM idempotency_records WHERE job_id = :id",
)


def revisions() -> list[str]:
    """Every revision, the first one first."""
    script = ScriptDirectory.from_config(Config(str(REPOSITORY / "alembic.ini")))
    return [revision.revision for revision in script.walk_revisions()][::-1]


@pytest.fixture
def upgrade(empty_database_url: str) -> Callable[[str], None]:
    def upgrade(target: str) -> None:
        subprocess.run(
            [sys.executable, "-m", "alembic", "upgrade", target],
            cwd=REPOSITORY,
            env={"DATABASE_URL": empty_database_url},
            check=True,
            capture_output=True,
        )

    return upgrade


@pytest.fixture
def database(empty_database_url: str) -> Iterator[Engine]:
    engine = create_engine(normalise_database_url(empty_database_url))
    yield engine
    engine.dispose()


def live(connection: Connection, job_id: str, *, until: str = "succeeded") -> None:
    """Let the first release take a job through its life, or a part of it."""

    def run(statement: str, **values: Any) -> Any:
        return connection.execute(text(statement), {"id": job_id, **values})

    for statement in SUBMIT:
        run(statement)
    assert str(run(RESERVE, key=f"key of {job_id}").scalar_one()) == job_id
    assert run(RESERVE, key=f"key of {job_id}").scalar_one_or_none() is None
    if until == "queued":
        return
    token = run(CLAIM).scalar_one()
    assert run(CLAIM).scalar_one_or_none() is None
    assert run(HEARTBEAT, token=token).scalar_one() is False
    assert run(HEARTBEAT, token=token - 1).scalar_one_or_none() is None
    for statement in RECORD:
        assert run(statement, token=token).rowcount == 1
    if until == "running":
        return
    assert str(run(FINISH, token=token).scalar_one()) == job_id


def everything(connection: Connection, job_id: str) -> list[list[tuple[Any, ...]]]:
    """All that the first release knows of a job."""
    return [
        [tuple(row) for row in connection.execute(text(statement), {"id": job_id})] for statement in READS
    ]


def id_of(number: int) -> str:
    return f"00000000-0000-7000-8000-{number:012}"


def test_data_of_the_first_revision_outlives_each_later_one(
    upgrade: Callable[[str], None], database: Engine
) -> None:
    first, *later = revisions()
    assert (first, bool(later)) == ("0001", True)
    upgrade(first)
    jobs = {id_of(1): "queued", id_of(2): "running", id_of(3): "succeeded"}
    with database.begin() as connection:
        for job_id, until in jobs.items():
            live(connection, job_id, until=until)
        before = {job_id: everything(connection, job_id) for job_id in jobs}
    assert [len(rows) for rows in before[id_of(3)]] == [1, 1, 2, 1, 1, 1]
    for number, revision in enumerate(later, start=4):
        upgrade(revision)
        with database.begin() as connection:
            assert {job_id: everything(connection, job_id) for job_id in jobs} == before, revision
            live(connection, id_of(number))
            assert [len(rows) for rows in everything(connection, id_of(number))] == [1, 1, 2, 1, 1, 1]


def test_a_migration_gives_up_on_a_lock_instead_of_holding_up_the_service(
    upgrade: Callable[[str], None], database: Engine
) -> None:
    upgrade("0001")
    with database.connect() as connection:
        connection.execute(text("LOCK TABLE jobs IN ROW EXCLUSIVE MODE"))
        with pytest.raises(subprocess.CalledProcessError) as failure:
            upgrade("head")
        assert b"lock timeout" in failure.value.stderr
        connection.rollback()
        assert connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one() == "0001"
    upgrade("head")
