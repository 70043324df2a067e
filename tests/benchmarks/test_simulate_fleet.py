"""The simulated fleet: its rule of whose turn it is is the database's, and no job is lost in it."""

from datetime import UTC, datetime, timedelta

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, text

from benchmarks.fleet_rules import Turns
from benchmarks.simulate_fleet import Fleet, Scenario, summary
from core.spec import DistillationSpec
from store import jobs
from store.database import transaction
from store.job_options import JobOptions
from store.tenants import ensure_tenant
from store.turns import claim_next

MILLISECONDS = {move: [5.0, 20.0] for move in ("claim", "heartbeat", "report", "reconcile", "finish")}
MOVES = st.lists(st.tuples(st.sampled_from("abc"), st.integers(-1, 1)) | st.none(), max_size=14)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(moves=MOVES, ends=st.booleans())
def test_the_rule_takes_the_very_job_that_the_database_takes(
    engine: Engine, moves: list[tuple[str, int] | None], ends: bool
) -> None:
    """Submissions and claims in any order, of workers that finish at once or never."""
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM jobs"))
        connection.execute(text("DELETE FROM tenants WHERE name IN ('a', 'b', 'c')"))
    turns: Turns[str] = Turns()
    now = datetime(2026, 3, 1, tzinfo=UTC)
    for number, move in enumerate([*moves, *[None] * len(moves)]):
        now += timedelta(seconds=1)
        if move is not None:
            name, priority = move
            with transaction(engine) as session:
                tenant_id = ensure_tenant(session, name, now=now)
            with transaction(engine, tenant_id=tenant_id) as session:
                options, spec = JobOptions(priority=priority), DistillationSpec(teacher="emoji-64")
                job = jobs.create_job(session, spec=spec, queue="cpu", now=now, options=options)
                turns.submit(str(tenant_id), job.id, number=number, priority=priority)
            continue
        with transaction(engine) as session:
            claim = claim_next(session, queue="cpu", worker="w", now=now, lease_seconds=60)
        assert turns.claim(now.timestamp()) == (claim and (claim.tenant_id, claim.job_id))
        if claim is not None and ends:
            turns.end(claim.tenant_id)
            lease = {"job_id": claim.job_id, "lease_token": claim.lease_token}
            with transaction(engine) as session:
                jobs.finish_succeeded(session, **lease, result={}, now=now)


def test_every_job_of_a_troubled_fleet_ends_once() -> None:
    scenario = Scenario(
        workers=20,
        jobs=600,
        tenants=5,
        burst=50,
        mean_minutes=5,
        lost_hints=0.2,
        days_between_deaths=0.05,
        reconciler_retry=0.05,  # so that it is there before most workers
    )
    fleet = Fleet(scenario, MILLISECONDS)
    figures = summary(scenario, fleet.simulate())
    assert sum(figures["jobs"].values()) == 600
    assert figures["leases_lost"]["by death"] > 0
    assert figures["leases_lost"]["by outage"] > 0
    assert figures["hints_sent_again"] > 0
    assert figures["claim_milliseconds"]["p50"] >= 5
    assert not fleet.running
    assert fleet.turns.waiting == 0
    assert all(turn.running == 0 for turn in fleet.turns.tenants.values())
