"""What came of a load: latencies in percentiles, and whether every job came to its end, once."""

import statistics
from time import monotonic, sleep
from typing import Any

import psycopg

from benchmarks.load.clients import Observations
from benchmarks.load.service import Service

PATIENCE_SECONDS = 120.0


def summary(seen: Observations) -> dict[str, Any]:
    """Figures of what the clients saw."""
    return {
        "accepted": len(seen.job_ids),
        "errors": seen.errors[:20],
        "error_count": len(seen.errors),
        "stream_events": seen.events,
        "poll_changes": seen.changes,
        "latency": {name: _percentiles(seconds) for name, seconds in sorted(seen.seconds.items())},
    }


def _percentiles(seconds: list[float]) -> dict[str, float]:
    cuts = statistics.quantiles(seconds, n=1_000, method="inclusive") if len(seconds) > 1 else seconds * 999
    return {
        "count": len(seconds),
        "p50_ms": 1_000 * cuts[499],
        "p95_ms": 1_000 * cuts[949],
        "p99_ms": 1_000 * cuts[989],
        "worst_ms": 1_000 * max(seconds),
    }


def await_jobs(service: Service, job_ids: list[str], patience_seconds: float = PATIENCE_SECONDS) -> int:
    """Wait until all jobs have ended; how many have not succeeded in one attempt, with one history."""
    deadline = monotonic() + patience_seconds
    with psycopg.connect(service.environment["DATABASE_URL"], autocommit=True) as connection:
        while True:
            sound = connection.execute(
                "SELECT count(*) FROM jobs"
                " WHERE id = ANY(%s::uuid[]) AND status = 'succeeded' AND attempt = 1"
                " AND last_sequence = (SELECT count(*) FROM job_events WHERE job_id = jobs.id)",
                [job_ids],
            ).fetchone()
            lost = len(set(job_ids)) - (sound[0] if sound else 0)
            if not lost or monotonic() > deadline:
                return lost
            sleep(0.5)
