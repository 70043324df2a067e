"""Makes the moves of many workers, without trainers: ``python -m benchmarks.load.mover``.

Every job is claimed, reports as a training does once a second, and succeeds: the very transactions that
workers make, by the very functions. It runs until it is told to end.
"""

import heapq
import signal
import threading
import time
from typing import Any

from store.database import create_engine, server_now, transaction
from store.events import NewEvent
from store.jobs import Claim, finish_succeeded
from store.leases import heartbeat, record_events
from store.settings import get_settings
from store.turns import claim_next

REPORTS = 3
REPORT_SECONDS = 1.0
MOST_AT_ONCE = 100
IDLE_SECONDS = 0.1


def main() -> None:
    """Move jobs until SIGTERM."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    settings = get_settings()
    engine = create_engine(settings)
    due: list[tuple[float, str, int, Claim]] = []
    while not stop.is_set():
        claim = None
        if len(due) < MOST_AT_ONCE:
            with transaction(engine) as session:
                claim = claim_next(
                    session,
                    queue=settings.worker_queue,
                    worker=f"mover-{len(due)}",
                    now=server_now(session),
                    lease_seconds=settings.lease_seconds,
                )
        if claim is not None:
            heapq.heappush(due, (time.monotonic() + REPORT_SECONDS, claim.job_id, 1, claim))
        while due and due[0][0] <= time.monotonic():
            _, job_id, report, claim = heapq.heappop(due)
            with transaction(engine) as session:
                lease: dict[str, Any] = {"job_id": job_id, "lease_token": claim.lease_token}
                now = server_now(session)
                if report > REPORTS:
                    finish_succeeded(session, **lease, result={"frechet_distance": 1.5}, now=now)
                    continue
                heartbeat(session, **lease, now=now, lease_seconds=settings.lease_seconds)
                record_events(session, **lease, events=_report(report), position=report, now=now)
            heapq.heappush(due, (time.monotonic() + REPORT_SECONDS, job_id, report + 1, claim))
        if claim is None:
            stop.wait(min(IDLE_SECONDS, max(due[0][0] - time.monotonic(), 0)) if due else IDLE_SECONDS)
    engine.dispose()


def _report(report: int) -> list[NewEvent]:
    progress = {"phase": "training", "done": report, "total": REPORTS, "unit": "steps", "eta_seconds": 1.0}
    values = {"loss": 1 / report, "gradient_norm": 0.5, "learning_rate": 1e-4, "samples_per_second": 100.0}
    events = [NewEvent("progress", progress), NewEvent("metrics", {"step": report, "values": values})]
    return [NewEvent("phase", {"phase": "training"}), *events] if report == 1 else events


if __name__ == "__main__":
    main()
