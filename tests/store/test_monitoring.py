"""What is watched of the job table."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Engine

from core.spec import DistillationSpec
from store.database import transaction
from store.job_options import JobOptions
from store.jobs import Claim, create_job, finish_succeeded, request_cancel
from store.monitoring import LiveJobs, Snapshot, read_snapshot
from store.quotas import Quotas


def snapshot(engine: Engine, now: datetime) -> Snapshot:
    with transaction(engine) as session:
        return read_snapshot(session, now=now, lease_seconds=60)


def test_an_empty_table_has_nothing_to_watch(engine: Engine, now: datetime) -> None:
    assert snapshot(engine, now) == Snapshot(live=[], ended={}, beat_seconds={})


def test_jobs_are_counted_by_queue_and_status_with_the_oldest_age(
    engine: Engine,
    now: datetime,
    spec: DistillationSpec,
    queued: Callable[[], str],
    running: Callable[[], Claim],
) -> None:
    claim = running()
    ended = running()
    cancelled = queued()
    queued()
    with transaction(engine) as session:
        finish_succeeded(session, job_id=ended.job_id, lease_token=ended.lease_token, result={}, now=now)
        request_cancel(session, job_id=cancelled, now=now)
        later = JobOptions(not_before=now + timedelta(hours=1))
        much_earlier = now - timedelta(hours=2)
        create_job(session, spec=spec, queue="cpu", options=later, now=much_earlier)
        create_job(session, spec=spec, queue="gpu", now=now + timedelta(seconds=20))
    seen = snapshot(engine, now + timedelta(seconds=30))
    assert sorted(seen.live, key=lambda group: (group.queue, group.status)) == [
        LiveJobs("cpu", "queued", count=2, due=1, oldest_seconds=30),
        LiveJobs("cpu", "running", count=1, due=0, oldest_seconds=30),
        LiveJobs("gpu", "queued", count=1, due=1, oldest_seconds=10),
    ]
    assert seen.ended == {"succeeded": 1, "cancelled": 1}
    assert claim.job_id not in (ended.job_id, cancelled)


def test_what_no_worker_may_take_calls_for_none(
    engine: Engine,
    now: datetime,
    spec: DistillationSpec,
    queued: Callable[[], str],
    running: Callable[[], Claim],
) -> None:
    claim = running()
    for _ in range(5):
        queued()
    with transaction(engine) as session:
        create_job(session, spec=spec, queue="gpu", now=now)

    def waiting(limit: int | None) -> list[tuple[str, int, int, float]]:
        with transaction(engine) as session:
            seen = read_snapshot(session, now=now, lease_seconds=60, quotas=Quotas(running_jobs=limit))
        return sorted(
            (each.queue, each.count, each.due, each.oldest_seconds)
            for each in seen.live
            if each.status == "queued"
        )

    assert waiting(None) == [("cpu", 5, 5, 0), ("gpu", 1, 1, 0)]
    assert waiting(3) == [("cpu", 5, 2, 0), ("gpu", 1, 1, 0)]
    assert waiting(1) == [("cpu", 5, 0, 0), ("gpu", 1, 0, 0)]
    with transaction(engine) as session:
        finish_succeeded(session, job_id=claim.job_id, lease_token=claim.lease_token, result={}, now=now)
    assert waiting(1) == [("cpu", 5, 1, 0), ("gpu", 1, 1, 0)]


def test_a_job_that_shall_not_begin_before_a_time_waits_from_then_on(
    engine: Engine, now: datetime, spec: DistillationSpec
) -> None:
    tomorrow = now + timedelta(days=1)
    with transaction(engine) as session:
        create_job(session, spec=spec, queue="cpu", options=JobOptions(not_before=tomorrow), now=now)
    for late, due in ((-1, 0), (0, 1), (60, 1)):
        seen = snapshot(engine, tomorrow + timedelta(seconds=late))
        assert seen.live == [LiveJobs("cpu", "queued", count=1, due=due, oldest_seconds=max(late, 0))]


def test_a_worker_that_stops_beating_is_seen_to_age(
    engine: Engine, now: datetime, running: Callable[[], Any]
) -> None:
    running()
    assert snapshot(engine, now).beat_seconds == {"w1": 0}
    assert snapshot(engine, now + timedelta(seconds=45)).beat_seconds == {"w1": 45}
