"""Whose job a worker takes next: tenants take turns, and one at its limit is passed over."""

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, text

from core.spec import DistillationSpec
from store import job_queries, jobs, turns
from store.database import transaction
from store.job_options import JobOptions
from store.models import Tenant
from store.quotas import NO_LIMITS, Quotas
from store.reconciler import unclaimed_jobs
from store.tenants import ensure_tenant, set_quotas


class Yard:
    """Submits for tenants and claims for workers, a second apart each."""

    def __init__(self, engine: Engine, spec: DistillationSpec, now: datetime) -> None:
        self.engine = engine
        self.spec = spec
        self.now = now

    def submit(self, tenant: str, *, priority: int = 0, queue: str = "cpu") -> str:
        self.now += timedelta(seconds=1)
        with transaction(self.engine) as session:
            tenant_id = ensure_tenant(session, tenant, now=self.now)
        with transaction(self.engine, tenant_id=tenant_id) as session:
            options = JobOptions(priority=priority)
            job = jobs.create_job(session, spec=self.spec, queue=queue, now=self.now, options=options)
        return job.id

    def claim(
        self, quotas: Quotas = NO_LIMITS, queue: str = "cpu", lesser: Sequence[str] = ()
    ) -> jobs.Claim | None:
        self.now += timedelta(seconds=1)
        with transaction(self.engine) as session:
            return turns.claim_next(
                session,
                queue=queue,
                lesser=lesser,
                worker="w",
                now=self.now,
                lease_seconds=60,
                quotas=quotas,
            )

    def owner(self, claim: jobs.Claim | None) -> str | None:
        if claim is None:
            return None
        with transaction(self.engine) as session:
            tenant_id = job_queries.get_job(session, claim.job_id).tenant_id
            return session.get_one(Tenant, tenant_id).name

    def end(self, claim: jobs.Claim | None) -> None:
        assert claim is not None
        with transaction(self.engine) as session:
            jobs.finish_succeeded(
                session, job_id=claim.job_id, lease_token=claim.lease_token, result={}, now=self.now
            )


@pytest.fixture
def yard(engine: Engine, spec: DistillationSpec, now: datetime) -> Yard:
    return Yard(engine, spec, now)


def test_one_worker_serves_tenants_in_turn_whatever_the_crowd_and_the_urgency(yard: Yard) -> None:
    for _ in range(4):
        yard.submit("crowd", priority=100)
    for _ in range(2):
        yard.submit("quiet", priority=-100)
    served = []
    while claim := yard.claim():
        served.append(yard.owner(claim))
        yard.end(claim)
    assert served == ["crowd", "quiet", "crowd", "quiet", "crowd", "crowd"]


def test_the_tenant_with_the_fewest_running_jobs_goes_first(yard: Yard) -> None:
    for tenant_id in ("a", "b", "a", "b", "b"):
        yard.submit(tenant_id)
    claims = [yard.claim() for _ in range(3)]
    assert [yard.owner(claim) for claim in claims] == ["a", "b", "a"]
    yard.end(claims[0])
    yard.end(claims[2])
    assert yard.owner(yard.claim()) == "b"


def test_within_a_tenant_the_most_urgent_and_then_the_oldest_goes_first(yard: Yard) -> None:
    old, young, urgent = yard.submit("a"), yard.submit("a"), yard.submit("a", priority=1)
    taken = [claim.job_id for claim in (yard.claim(), yard.claim(), yard.claim()) if claim]
    assert taken == [urgent, old, young]


def test_a_tenant_at_its_limit_is_passed_over_until_a_job_of_it_ends(yard: Yard) -> None:
    with transaction(yard.engine) as session:
        ensure_tenant(session, "limited", now=yard.now)
        set_quotas(session, "limited", {"running_jobs": 1})
    for _ in range(2):
        yard.submit("limited")
    other = yard.submit("other")
    first = yard.claim()
    assert yard.owner(first) == "limited"
    claim = yard.claim()
    assert claim is not None
    assert claim.job_id == other
    assert yard.claim() is None
    yard.end(first)
    assert yard.owner(yard.claim()) == "limited"


def test_a_limit_of_none_at_all_lets_nothing_run(yard: Yard) -> None:
    yard.submit("a")
    assert yard.claim(Quotas(running_jobs=0)) is None
    assert yard.claim(queue="other") is None
    assert yard.claim(Quotas(running_jobs=1)) is not None


def test_workers_at_once_do_not_pass_the_limit_together(yard: Yard) -> None:
    for _ in range(6):
        for tenant_id in ("a", "b"):
            yard.submit(tenant_id)
    now = yard.now

    def claim(_: int) -> jobs.Claim | None:
        with transaction(yard.engine) as session:
            return turns.claim_next(
                session, queue="cpu", worker="w", now=now, lease_seconds=60, quotas=Quotas(running_jobs=2)
            )

    with ThreadPoolExecutor(8) as threads:
        claims = [claim for claim in threads.map(claim, range(24)) if claim is not None]
    assert len({claim.job_id for claim in claims}) == len(claims)
    # One that found a tenant's row held may have gone away without a job; none took one too many.
    owners = Counter(yard.owner(claim) for claim in claims)
    assert max(owners.values()) <= 2
    while claim_late := yard.claim(Quotas(running_jobs=2)):
        owners[yard.owner(claim_late)] += 1
    assert owners == {"a": 2, "b": 2}


def test_no_bell_is_rung_for_a_tenant_at_its_limit(yard: Yard) -> None:
    yard.submit("a")
    yard.claim()
    waiting, other = yard.submit("a"), yard.submit("b")

    def rung(quotas: Quotas) -> list[str]:
        later = yard.now + timedelta(hours=1)
        with transaction(yard.engine) as session:
            return unclaimed_jobs(
                session, queue="cpu", older_than=later, limit=9, now=yard.now, quotas=quotas
            )

    assert rung(Quotas(running_jobs=1)) == [other]
    assert rung(NO_LIMITS) == sorted([waiting, other])


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    crowd=st.lists(st.tuples(st.sampled_from("abc"), st.integers(-100, 100)), max_size=12),
    limit=st.none() | st.integers(1, 2),
)
def test_nobody_starves_and_nobody_has_more_than_one_too_many(
    yard: Yard, crowd: list[tuple[str, int]], limit: int | None
) -> None:
    """With endless workers every tenant's running jobs differ by one at most while it has others waiting."""
    with yard.engine.begin() as connection:
        connection.execute(text("DELETE FROM jobs"))
    for tenant_id, priority in crowd:
        yard.submit(tenant_id, priority=priority)
    waiting = Counter(tenant_id for tenant_id, _ in crowd)
    running: Counter[str] = Counter()
    while claim := yard.claim(Quotas(running_jobs=limit)):
        owner = yard.owner(claim)
        assert owner is not None
        could = [
            tenant for tenant in waiting if waiting[tenant] and (limit is None or running[tenant] < limit)
        ]
        assert running[owner] == min(running[tenant] for tenant in could)
        waiting[owner] -= 1
        running[owner] += 1
    for tenant, left in waiting.items():
        assert left == 0 or running[tenant] == limit


CLASSES = ["cpu", "gpu", "gpu-80gb"]
SUBMITTED = st.tuples(st.sampled_from("abc"), st.sampled_from(CLASSES), st.integers(-2, 2))


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(crowd=st.lists(SUBMITTED, max_size=10), workers=st.lists(st.sampled_from(CLASSES), max_size=14))
def test_workers_of_every_class_are_fair_and_idle_only_where_nothing_is_for_them(
    yard: Yard, crowd: list[tuple[str, str, int]], workers: list[str]
) -> None:
    """Whoever asks gets what a model of the rules gives, in whatever order workers ask."""
    with yard.engine.begin() as connection:
        connection.execute(text("DELETE FROM jobs"))
        connection.execute(text("UPDATE tenants SET claimed_at = NULL"))
    waiting = {
        yard.submit(tenant, priority=priority, queue=queue): (tenant, queue, priority)
        for tenant, queue, priority in crowd
    }
    running: Counter[str] = Counter()
    for worker in workers:
        lesser = CLASSES[: CLASSES.index(worker)]
        claim = yard.claim(queue=worker, lesser=lesser)
        fits = {job: told for job, told in waiting.items() if told[1] in {worker, *lesser}}
        if claim is None:
            assert not fits
            continue
        tenant, queue, _ = fits[claim.job_id]
        assert running[tenant] == min(running[other] for other, _, _ in fits.values())
        own = [(-priority, job) for job, (owner, _, priority) in fits.items() if owner == tenant]
        assert claim.job_id == min(own)[1]
        assert queue == worker or queue in lesser
        del waiting[claim.job_id]
        running[tenant] += 1
