"""What the moves of a large fleet take in a real Postgres: ``python -m benchmarks.fleet_sql``.

50 tenants, 1,000 running jobs, 20,000 waiting ones; each move is timed alone, commit included, by one client
on loopback. Writes docs/results/fleet-sql.json, which `benchmarks.simulate_fleet` draws its times from.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from sqlalchemy import Engine, text

from core.files import write_json
from core.spec import DistillationSpec
from embedded.stack import running
from store import jobs
from store.database import create_engine, server_now, transaction
from store.events import NewEvent
from store.leases import Report, heartbeat
from store.reconciler import reconcile_once
from store.settings import Settings
from store.tenants import ensure_tenant

REPOSITORY = Path(__file__).resolve().parents[1]
RESULT = REPOSITORY / "docs" / "results" / "fleet-sql.json"
TENANTS, RUNNING, WAITING, TIMED = 50, 1_000, 20_000, 60
COPY = """
    INSERT INTO jobs (id, tenant_id, status, progress, queue, teacher, spec, attempt, attempts_used,
        cancel_requested, pause_requested, priority, runtime_s, scratch_attempt, lease_token, last_sequence,
        events_position, hinted_at, created_at, updated_at, lease_expires_at, claimed_at)
    SELECT gen_random_uuid(), (SELECT array_agg(id ORDER BY id) FROM tenants)[1 + n % :tenants],
        CASE WHEN n > :running THEN 'queued' ELSE 'running' END, 0, queue, teacher, spec, 0, 0, false, false,
        0, 0, 0, 0, 1, 0, now(), now(), now(), CASE WHEN n <= :running THEN now() + interval '1 day' END,
        CASE WHEN n <= :running THEN now() END
    FROM jobs CROSS JOIN generate_series(1, :count) AS n WHERE jobs.id = :model
"""


def main() -> None:
    """Measure and write."""
    with tempfile.TemporaryDirectory() as folder, running(Path(folder), environ={}, durable=True) as stack:
        environment = os.environ | stack.environment()
        alembic = [sys.executable, "-m", "alembic", "upgrade", "head"]
        subprocess.run(alembic, cwd=REPOSITORY, env=environment, check=True, capture_output=True)
        settings = Settings.model_validate({name.lower(): value for name, value in environment.items()})
        engine = create_engine(settings)
        try:
            times = measure(engine, settings)
        finally:
            engine.dispose()
    write_json(RESULT, {"milliseconds": {name: sorted(found) for name, found in times.items()}})
    for name, found in times.items():
        print(f"{name}: median {sorted(found)[len(found) // 2]:.1f} ms, worst {max(found):.1f} ms")


def measure(engine: Engine, settings: Settings) -> dict[str, list[float]]:
    """Time every move of a job's life."""
    spec = DistillationSpec(teacher="emoji-64")
    with transaction(engine) as session:
        for number in range(TENANTS - 1):
            ensure_tenant(session, f"tenant-{number}", now=server_now(session))
        model = jobs.create_job(session, spec=spec, queue="cpu", now=server_now(session)).id
    with engine.begin() as connection:
        sizes = {
            "tenants": TENANTS,
            "count": RUNNING + WAITING,
            "running": RUNNING,
            "model": model,
        }
        connection.execute(text(COPY), sizes)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("ANALYZE"))
    claims: list[jobs.Claim] = []

    def claim() -> None:
        with transaction(engine) as session:
            taken = turns.claim_next(
                session, queue="cpu", worker="w", now=server_now(session), lease_seconds=3_600
            )
        claims.append(taken) if taken is not None else None

    def beat(report: Report | None = None) -> None:
        lease = claims[0]
        with transaction(engine) as session:
            heartbeat(
                session,
                job_id=lease.job_id,
                lease_token=lease.lease_token,
                now=server_now(session),
                lease_seconds=3_600,
                report=report,
            )

    def report() -> None:
        event = NewEvent("progress", {"phase": "training", "done": 1, "total": 2})
        beat(Report([event], next(positions)))

    def finish() -> None:
        lease = next(turns)
        with transaction(engine) as session:
            now = server_now(session)
            jobs.finish_succeeded(
                session, job_id=lease.job_id, lease_token=lease.lease_token, result={}, now=now
            )

    def reconcile() -> None:
        with transaction(engine) as session:
            now = server_now(session)
        # Not so late that hints are sent again: the broker is not what is measured.
        reconcile_once(engine, settings.model_copy(update={"reconcile_seconds": 86_400.0}), now)

    positions = iter(range(1, 10 * TIMED))
    claimed = [timed(claim) for _ in range(TIMED)]
    turns = iter(claims)
    return {
        "claim": claimed,
        "heartbeat": [timed(beat) for _ in range(TIMED)],
        "report": [timed(report) for _ in range(TIMED)],
        "reconcile": [timed(reconcile) for _ in range(10)],
        "finish": [timed(finish) for _ in range(TIMED)],
    }


def timed(work: Callable[[], None]) -> float:
    """Return the milliseconds that something takes."""
    began = time.perf_counter()
    work()
    return round(1_000 * (time.perf_counter() - began), 3)


if __name__ == "__main__":
    main()
