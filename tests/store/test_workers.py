"""What workers tell of themselves, and who sees what of it."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta

from sqlalchemy import Engine

from core.spec import DistillationSpec
from store.database import transaction
from store.jobs import claim_job, create_job
from store.workers import Announcement, announce, forget_silent_workers, list_workers, sign_off

TOLD = Announcement(
    name="w1",
    role="training",
    host="gpu-07",
    queue="gpu",
    release="0.1.0",
    device="NVIDIA H100 80GB HBM3",
    device_count=2,
    memory_bytes=80 * 2**30,
)


def test_a_worker_names_the_jobs_of_the_tenant_that_asks_and_counts_the_others(
    engine: Engine, now: datetime, spec: DistillationSpec, tenant_id: Callable[[str], str]
) -> None:
    made = {}
    for owner in ("a", "a", "b"):
        with transaction(engine, tenant_id=tenant_id(owner)) as session:
            made.setdefault(owner, []).append(create_job(session, spec=spec, queue="gpu", now=now).id)
    for job_id in (*made["a"], *made["b"]):
        with transaction(engine) as session:
            assert claim_job(session, job_id=job_id, worker="w1", now=now, lease_seconds=60)
            announce(session, TOLD, started_at=now, now=now)
            announce(session, replace(TOLD, name="w0"), started_at=now, now=now)
    for asks, named, others in (("a", sorted(made["a"]), 1), ("b", made["b"], 2), ("c", [], 3)):
        with transaction(engine, tenant_id=tenant_id(asks)) as session:
            idle, busy = list_workers(session)
        assert (idle.worker.name, idle.job_ids, idle.other_jobs) == ("w0", [], 0)
        assert (busy.worker.name, busy.job_ids, busy.other_jobs) == ("w1", named, others)
    with transaction(engine) as session:
        assert list_workers(session)[1].job_ids == sorted([*made["a"], *made["b"]])


def test_a_beat_renews_a_row_and_silence_ends_it(engine: Engine, now: datetime) -> None:
    later = now + timedelta(hours=20)
    with transaction(engine) as session:
        for name in ("w1", "w2", "w3"):
            announce(session, replace(TOLD, name=name), started_at=now, now=now)
        changed = replace(TOLD, release="0.2.0", memory_bytes=None)
        announce(session, changed, started_at=now, now=later)
        announce(session, replace(TOLD, name="draws", role="interactive"), started_at=now, now=later)
        sign_off(session, "w3")
        forget_silent_workers(session, now=later)
        assert [each.worker.name for each in list_workers(session)] == ["w1", "w2"]
        forget_silent_workers(session, now=now + timedelta(hours=25))
        (left,) = list_workers(session)
    assert (left.worker.release, left.worker.memory_bytes) == ("0.2.0", None)
    assert (left.worker.started_at, left.worker.beat_at) == (now, later)
