"""When the phases of a job began and ended."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Engine, event, text

from store.caption_files import captions_read
from store.database import transaction
from store.events import NewEvent, list_latest_events
from store.jobs import Claim, claim_job, release_to_queue
from store.leases import record_events
from store.models import QUIET_EVENTS
from store.phases import list_phases


def begin(engine: Engine, claim: Claim, phase: str, position: int, now: datetime) -> None:
    with transaction(engine) as session:
        record_events(
            session,
            job_id=claim.job_id,
            lease_token=claim.lease_token,
            events=[NewEvent("phase", {"phase": phase})],
            position=position,
            now=now,
        )


def test_a_phase_lasts_up_to_the_next_or_to_the_next_move(
    engine: Engine, running: Callable[[], Claim], now: datetime
) -> None:
    first = running()
    begin(engine, first, "captions", 1, now + timedelta(seconds=1))
    begin(engine, first, "training", 2, now + timedelta(seconds=3))
    with transaction(engine) as session:
        release_to_queue(
            session, job_id=first.job_id, lease_token=first.lease_token, now=now + timedelta(seconds=13)
        )
    later = now + timedelta(seconds=100)
    with transaction(engine) as session:
        second = claim_job(session, job_id=first.job_id, worker="w2", now=later, lease_seconds=60)
    assert second is not None
    begin(engine, second, "training", 1, later + timedelta(seconds=5))
    with transaction(engine) as session:
        spans = list_phases(session, first.job_id)
    assert [(span.phase, span.attempt, span.seconds) for span in spans] == [
        ("captions", 1, 2),
        ("training", 1, 10),
        ("training", 2, None),
    ]


def test_the_last_events_are_listed_in_order_and_by_type(
    engine: Engine, running: Callable[[], Claim], now: datetime
) -> None:
    claim = running()
    for position, phase in enumerate(("captions", "latents", "training"), start=1):
        begin(engine, claim, phase, position, now)
    with transaction(engine) as session:
        last = list_latest_events(session, claim.job_id, limit=2)
        moves = list_latest_events(session, claim.job_id, limit=9, types=["status"])
    assert [event.data["phase"] for event in last] == ["latents", "training"]
    assert [event.data["status"] for event in moves] == ["queued", "running"]


def test_a_long_training_is_told_without_reading_its_numbers(
    engine: Engine, running: Callable[[], Claim], now: datetime
) -> None:
    claim = running()
    begin(engine, claim, "training", 1, now)
    numbers = [NewEvent(kind, {"step": step, "values": {}}) for step in range(1_000) for kind in QUIET_EVENTS]
    with transaction(engine) as session:
        lease = {"job_id": claim.job_id, "lease_token": claim.lease_token, "now": now}
        record_events(session, **lease, events=numbers, position=2)
    plans: list[str] = []

    def explain(connection: Any, _: Any, statement: str, parameters: Any, *__: Any) -> None:
        if "job_events" in statement and not statement.startswith("EXPLAIN"):
            rows = connection.exec_driver_sql(f"EXPLAIN {statement}", parameters)
            plans.append("\n".join(rows.scalars()))

    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("ANALYZE job_events"))
    event.listen(engine, "before_cursor_execute", explain)
    with transaction(engine) as session:
        told = list_latest_events(session, claim.job_id, limit=100)
        list_latest_events(session, claim.job_id, limit=100, types=["sample"])
        assert len(list_phases(session, claim.job_id)) == 1
        captions_read(session, [claim.job_id])
    event.remove(engine, "before_cursor_execute", explain)
    assert [each.type for each in told] == ["status", "status", "phase"]
    assert len(plans) == 4
    for plan in plans:
        assert "ix_job_events_told" in plan, plan
