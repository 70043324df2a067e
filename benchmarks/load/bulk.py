"""Fills the database by COPY: many copies of one job that has ended, each with a curve of many points."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import psycopg

from store.ids import new_job_id

CURVES = ("loss", "gradient_norm", "learning_rate", "samples_per_second")
BLOCK = 1_000


def fill(database_url: str, template: str, *, jobs: int, points: int) -> None:
    """Copy a job, its history and ``points`` metric points altogether, spread evenly over the copies.

    Parameters
    ----------
    database_url
        A database that is thrown away; its user must be a superuser.
    template
        Id of a job that has ended.
    jobs, points
        How many.
    """
    first = datetime.now(UTC) - timedelta(days=365)
    ids = sorted(new_job_id(first + timedelta(seconds=60 * number)) for number in range(jobs))
    steps = points // jobs // len(CURVES)
    curve = "".join(f"@\t{name}\t{step * 50}\t1\t0.25\n" for name in sorted(CURVES) for step in range(steps))
    with psycopg.connect(database_url, autocommit=True) as connection:
        # Foreign keys hold by construction; checking each of ten million takes longer than writing them.
        connection.execute("SET session_replication_role = replica")
        for table, key in (("jobs", "id"), ("job_transitions", "job_id"), ("job_events", "job_id")):
            rows = b"".join(_rows_of(connection, table, key, template))
            _copy(connection, table, ids, rows.decode().replace(template, "@"))
        _copy(connection, "metric_points", ids, curve)
        connection.execute("VACUUM ANALYZE")


def _rows_of(
    connection: "psycopg.Connection[tuple[object, ...]]", table: str, key: str, job_id: str
) -> Iterator[bytes]:
    statement = f"COPY (SELECT * FROM {table} WHERE {key} = '{job_id}') TO STDOUT"
    with connection.cursor() as cursor, cursor.copy(statement.encode()) as copy:
        yield from map(bytes, copy)


def _copy(
    connection: "psycopg.Connection[tuple[object, ...]]", table: str, ids: list[str], rows: str
) -> None:
    with connection.cursor() as cursor, cursor.copy(f"COPY {table} FROM STDIN".encode()) as copy:
        for start in range(0, len(ids), BLOCK):
            copy.write("".join(rows.replace("@", job_id) for job_id in ids[start : start + BLOCK]))
