"""Limits of tenants: what is refused, what is counted, and that nobody passes a limit by being quick."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any

import pytest
from sqlalchemy import Engine, text

from core.spec import DistillationSpec
from store import job_queries, jobs
from store.database import transaction
from store.errors import QuotaExceededError
from store.idempotency import IdempotencyKey
from store.jobs import Claim
from store.leases import NewArtifact, add_artifacts, forget_checkpoints
from store.models import Tenant
from store.quotas import NO_LIMITS, Quotas
from store.stored_bytes import recount_bytes
from store.tenants import ensure_tenant, get_tenant, list_tenants, set_quotas


def submit(engine: Engine, spec: DistillationSpec, now: datetime, quotas: Quotas, **options: Any) -> str:
    with transaction(engine) as session:
        tenant_id = ensure_tenant(session, options.pop("tenant", "default"), now=now)
    with transaction(engine, tenant_id=tenant_id) as session:
        return jobs.create_job(session, spec=spec, queue="cpu", now=now, quotas=quotas, **options).id


def stored(engine: Engine) -> dict[str, int]:
    with transaction(engine) as session:
        return {tenant.name: tenant.bytes_stored for tenant in list_tenants(session)}


def file(path: str, size: int, step: int | None = None) -> NewArtifact:
    kind: Any = "log" if step is None else "checkpoint_file"
    return NewArtifact(path=path, kind=kind, step=step, key=path, size=size, sha256="")


def lease(claim: Claim) -> dict[str, Any]:
    return {"job_id": claim.job_id, "lease_token": claim.lease_token}


def test_a_submission_past_the_queued_limit_names_limit_and_value(
    engine: Engine, spec: DistillationSpec, now: datetime
) -> None:
    quotas = Quotas(queued_jobs=2)
    first = submit(engine, spec, now, quotas)
    submit(engine, spec, now, quotas)
    with pytest.raises(QuotaExceededError) as refused:
        submit(engine, spec, now, quotas)
    assert (refused.value.quota, refused.value.limit, refused.value.present) == ("queued_jobs", 2, 2)
    with transaction(engine) as session:
        assert len(job_queries.list_jobs(session).items) == 2
        jobs.request_cancel(session, job_id=first, now=now)
    submit(engine, spec, now, quotas)
    submit(engine, spec, now, quotas, tenant="other")


@pytest.mark.parametrize("way_back", ["retry", "resume"])
def test_a_job_comes_back_into_the_queue_only_while_there_is_room(
    engine: Engine, spec: DistillationSpec, now: datetime, way_back: str
) -> None:
    quotas = Quotas(queued_jobs=1)
    job_id = submit(engine, spec, now, quotas)
    with transaction(engine) as session:
        leave = jobs.request_cancel if way_back == "retry" else jobs.request_pause
        leave(session, job_id=job_id, now=now)
    other = submit(engine, spec, now, quotas)

    def come_back() -> str:
        options: dict[str, Any] = {"job_id": job_id, "now": now, "quotas": quotas}
        with transaction(engine) as session:
            if way_back == "retry":
                return jobs.retry_job(session, from_scratch=False, **options).status
            return jobs.resume_job(session, **options).status

    with pytest.raises(QuotaExceededError, match="1 jobs of tenant default are queued, and 1 may be"):
        come_back()
    with transaction(engine) as session:
        assert job_queries.get_job(session, job_id).status == (
            "cancelled" if way_back == "retry" else "paused"
        )
        jobs.request_cancel(session, job_id=other, now=now)
    assert come_back() == "queued"


def test_a_repeated_request_is_not_counted_again(
    engine: Engine, spec: DistillationSpec, now: datetime
) -> None:
    key = IdempotencyKey("k", "f")
    made = [submit(engine, spec, now, Quotas(queued_jobs=1), idempotency=key) for _ in range(2)]
    assert made[0] == made[1]


def test_submissions_at_once_do_not_pass_the_limit_together(
    engine: Engine, spec: DistillationSpec, now: datetime
) -> None:
    def try_it(_: int) -> bool:
        try:
            submit(engine, spec, now, Quotas(queued_jobs=5))
        except QuotaExceededError:
            return False
        return True

    with ThreadPoolExecutor(8) as threads:
        assert sum(threads.map(try_it, range(24))) == 5


def test_a_tenants_own_limit_goes_before_the_default(
    engine: Engine, spec: DistillationSpec, now: datetime
) -> None:
    with transaction(engine) as session:
        set_quotas(session, "default", {"queued_jobs": 1, "running_jobs": 3})
    submit(engine, spec, now, NO_LIMITS)
    for quotas in (NO_LIMITS, Quotas(queued_jobs=100)):
        with pytest.raises(QuotaExceededError):
            submit(engine, spec, now, quotas)
    with transaction(engine) as session:
        set_quotas(session, "default", {"queued_jobs": None})
        assert get_tenant(session, "default").running_jobs == 3
    submit(engine, spec, now, NO_LIMITS)


def test_every_limit_has_a_column_of_its_own() -> None:
    tenant = Tenant(queued_jobs=1, running_jobs=2, max_bytes_stored=3, captions_per_job=4)
    assert NO_LIMITS.of(tenant) == Quotas(1, 2, 3, 4)
    assert Quotas(5, 6, 7, 8).of(tenant) == Quotas(1, 2, 3, 4)
    assert Quotas(5, 6, 7, 8).of(Tenant()) == Quotas(5, 6, 7, 8)


@pytest.mark.parametrize(
    ("captions", "present", "field"),
    [
        ({"kind": "inline", "texts": ["a", "b", "c"]}, 3, "captions.texts"),
        ({"kind": "file", "path": "c.txt"}, None, "captions.limit"),
        ({"kind": "file", "path": "c.txt", "limit": 3}, 3, "captions.limit"),
        ({"kind": "uploaded", "id": "019ab2c4-7f1e-7c3a-9d52-0b6a4be1d9aa"}, None, "captions.limit"),
        ({"kind": "s3", "uri": "s3://data/captions.txt", "limit": 3}, 3, "captions.limit"),
        ({"kind": "hub", "dataset": "a/b", "column": "c"}, None, "captions.limit"),
    ],
)
def test_too_many_captions_are_refused(
    engine: Engine, now: datetime, captions: Any, present: int | None, field: str
) -> None:
    spec = DistillationSpec(teacher="t", captions=captions)
    with pytest.raises(QuotaExceededError) as refused:
        submit(engine, spec, now, Quotas(captions_per_job=2))
    assert (refused.value.limit, refused.value.present, refused.value.field) == (2, present, field)
    submit(engine, spec, now, NO_LIMITS)


@pytest.mark.parametrize(
    "captions",
    [
        {"kind": "inline", "texts": ["a", "b"]},
        {"kind": "file", "path": "c.txt", "limit": 2},
        {"kind": "bundled"},
    ],
)
def test_captions_up_to_the_limit_are_taken(engine: Engine, now: datetime, captions: Any) -> None:
    submit(engine, DistillationSpec(teacher="t", captions=captions), now, Quotas(captions_per_job=2))


def test_bytes_are_counted_as_files_come_and_go(
    engine: Engine, running: Callable[[], Claim], spec: DistillationSpec, now: datetime
) -> None:
    claim = running()
    with transaction(engine) as session:
        for step in (1, 2):
            checkpoint = [file(f"{step}/{part}", 10, step) for part in "ab"]
            for _ in range(2):  # as after a commit of which the answer was lost
                add_artifacts(session, **lease(claim), artifacts=checkpoint, event=None, now=now)
        add_artifacts(session, **lease(claim), artifacts=[file("log", 3)], event=None, now=now)
    assert stored(engine) == {"default": 43}
    with transaction(engine) as session:
        forget_checkpoints(session, **lease(claim), steps_by_attempt=[(1, 1), (1, 7)], now=now)
    assert stored(engine) == {"default": 23}

    submit(engine, spec, now, Quotas(bytes_stored=24))
    with pytest.raises(QuotaExceededError) as refused:
        submit(engine, spec, now, Quotas(bytes_stored=23))
    assert (refused.value.quota, refused.value.present) == ("bytes_stored", 23)

    with transaction(engine) as session:
        jobs.finish_succeeded(session, **lease(claim), result={}, now=now)
        for _ in range(2):
            jobs.delete_job(session, job_id=claim.job_id, now=now)
    assert stored(engine) == {"default": 0}


def test_a_sum_that_went_wrong_is_made_right(
    engine: Engine, running: Callable[[], Claim], now: datetime
) -> None:
    claim = running()
    with transaction(engine) as session:
        ensure_tenant(session, "other", now=now)
        add_artifacts(session, **lease(claim), artifacts=[file("log", 3)], event=None, now=now)
        for tenant in list_tenants(session):
            tenant.bytes_stored = 99
    recount_bytes(engine)
    assert stored(engine) == {"default": 3, "other": 0}


def waits_for_a_lock(engine: Engine) -> bool:
    waiting = "datname = current_database() AND wait_event_type = 'Lock'"
    with engine.connect() as connection:
        query = text(f"SELECT EXISTS (SELECT FROM pg_stat_activity WHERE {waiting})")
        return bool(connection.execute(query).scalar_one())


def test_a_file_that_comes_while_the_sum_is_made_is_counted_once(
    engine: Engine, running: Callable[[], Claim], now: datetime, eventually: Callable[..., Any]
) -> None:
    claim = running()
    with ThreadPoolExecutor() as threads:
        with transaction(engine) as session:
            add_artifacts(session, **lease(claim), artifacts=[file("log", 3)], event=None, now=now)
            sums = threads.submit(recount_bytes, engine)
            eventually(lambda: waits_for_a_lock(engine))
        sums.result(timeout=20)
    assert stored(engine) == {"default": 3}
