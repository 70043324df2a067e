"""Single moves of a job, and the races between those who move it."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, event

from store import job_queries, jobs, turns
from store.database import transaction
from store.endings import Ending
from store.errors import JobFinishedError, LeaseLostError, NotFoundError
from store.events import NewEvent, ends_the_job, list_events
from store.jobs import Claim
from store.leases import NewArtifact, add_artifacts, forget_checkpoints, heartbeat, record_events
from store.models import TERMINAL_STATUSES, Job

MakeJob = Callable[[], str]
MakeClaim = Callable[[], Claim]


def read(engine: Engine, job_id: str) -> Job:
    with transaction(engine) as session:
        return job_queries.get_job(session, job_id)


def test_a_new_job_is_queued_and_says_so(engine: Engine, queued: MakeJob, now: datetime) -> None:
    job = read(engine, queued())
    assert (job.status, job.attempt, job.progress) == ("queued", 0, 0.0)
    assert [(t.status, t.at) for t in job.transitions] == [("queued", now)]
    assert job.spec["teacher"] == "emoji-64"


@pytest.mark.parametrize("job_id", ["", "no-such-id", "0" * 32, "' OR 1=1"])
def test_an_unknown_id_is_not_found(engine: Engine, job_id: str) -> None:
    with pytest.raises(NotFoundError):
        read(engine, job_id)


def test_exactly_one_of_many_claims_wins(engine: Engine, queued: MakeJob, now: datetime) -> None:
    job_id = queued()

    def claim(number: int) -> Claim | None:
        with transaction(engine) as session:
            return jobs.claim_job(session, job_id=job_id, worker=f"w{number}", now=now, lease_seconds=60)

    with ThreadPoolExecutor(8) as pool:
        claims = [claim for claim in pool.map(claim, range(24)) if claim is not None]
    assert [(claim.attempt, claim.lease_token) for claim in claims] == [(1, 1)]
    assert [t.status for t in read(engine, job_id).transitions] == ["queued", "running"]


def test_claim_and_cancel_never_both_win(engine: Engine, queued: MakeJob, now: datetime) -> None:
    def race(job_id: str) -> None:
        def claim() -> None:
            with transaction(engine) as session:
                jobs.claim_job(session, job_id=job_id, worker="w", now=now, lease_seconds=60)

        def cancel() -> None:
            with transaction(engine) as session:
                jobs.request_cancel(session, job_id=job_id, now=now)

        with ThreadPoolExecutor(2) as pool:
            for future in [pool.submit(claim), pool.submit(cancel)]:
                future.result()

    for _ in range(10):
        job_id = queued()
        race(job_id)
        job = read(engine, job_id)
        assert job.status == "cancelled" or (job.status == "running" and job.cancel_requested)


def stale_writes(claim: Claim, now: datetime) -> dict[str, Callable[..., object]]:
    lease = {"job_id": claim.job_id, "lease_token": claim.lease_token, "now": now}
    artifact = NewArtifact(path="x", kind="log", step=None, key="stale", size=1, sha256="0")
    event = NewEvent("warning", {"message": "stale"})
    return {
        "heartbeat": lambda s: heartbeat(s, **lease, lease_seconds=60),
        "events": lambda s: record_events(s, **lease, events=[event], position=10),
        "artifact": lambda s: add_artifacts(s, **lease, artifacts=[artifact], event=event),
        "checkpoints": lambda s: forget_checkpoints(s, **lease, steps_by_attempt=[(1, 1)]),
        "succeed": lambda s: jobs.finish_succeeded(s, **lease, result={}),
        "fail": lambda s: jobs.finish_failed(s, **lease, ending=Ending("diverged", "m")),
        "out of memory": lambda s: jobs.release_after_out_of_memory(
            s, **lease, ending=Ending("out_of_memory", "m"), processes=1, max_attempts=3
        ),
        "release": lambda s: jobs.release_to_queue(s, **lease),
        "crash": lambda s: jobs.release_after_crash(s, **lease, message="m", max_attempts=3),
    }


@pytest.mark.parametrize("successor", ["running", "queued", "cancelled"])
def test_a_stale_lease_writes_nothing(
    engine: Engine, running: MakeClaim, now: datetime, successor: str
) -> None:
    claim = running()
    later = now + timedelta(seconds=61)
    with transaction(engine) as session:
        assert jobs.requeue_expired(session, now=later, max_attempts=3) == [claim.job_id]
    with transaction(engine) as session:
        if successor == "running":
            jobs.claim_job(session, job_id=claim.job_id, worker="w2", now=later, lease_seconds=60)
        elif successor == "cancelled":
            jobs.request_cancel(session, job_id=claim.job_id, now=later)
    before = snapshot(engine, claim.job_id)
    for name, write in stale_writes(claim, later).items():
        with pytest.raises(LeaseLostError), transaction(engine) as session:
            write(session)
        assert snapshot(engine, claim.job_id) == before, name


def snapshot(engine: Engine, job_id: str) -> tuple[object, ...]:
    with transaction(engine) as session:
        job = job_queries.get_job(session, job_id)
        events = list_events(session, job_id, limit=1_000).items
        columns = {column.name: getattr(job, column.name) for column in Job.__table__.columns}
        return columns, [(e.sequence, e.type, e.data) for e in events], len(job.transitions)


def test_cancelling_a_queued_job_is_at_once_and_final(engine: Engine, queued: MakeJob, now: datetime) -> None:
    job_id = queued()
    with transaction(engine) as session:
        job = jobs.request_cancel(session, job_id=job_id, now=now)
    assert (job.status, job.reason, job.finished_at) == ("cancelled", "cancelled_by_user", now)
    with pytest.raises(JobFinishedError), transaction(engine) as session:
        jobs.request_cancel(session, job_id=job_id, now=now)
    with transaction(engine) as session:
        assert jobs.claim_job(session, job_id=job_id, worker="w", now=now, lease_seconds=60) is None


def test_cancelling_a_running_job_asks_its_worker_once(
    engine: Engine, running: MakeClaim, now: datetime
) -> None:
    claim = running()
    for _ in range(2):
        with transaction(engine) as session:
            job = jobs.request_cancel(session, job_id=claim.job_id, now=now)
            assert (job.status, job.cancel_requested) == ("running", True)
    with transaction(engine) as session:
        reply = heartbeat(
            session, job_id=claim.job_id, lease_token=claim.lease_token, now=now, lease_seconds=60
        )
        assert reply.stop == "cancel"
        events = list_events(session, claim.job_id).items
    assert [event.type for event in events] == ["status", "status", "cancel_requested"]


@pytest.mark.parametrize("give_back", ["expired", "released", "crashed"])
def test_a_job_asked_to_cancel_is_cancelled_when_its_worker_goes(
    engine: Engine, running: MakeClaim, now: datetime, give_back: str
) -> None:
    claim = running()
    lease = {"job_id": claim.job_id, "lease_token": claim.lease_token}
    with transaction(engine) as session:
        jobs.request_cancel(session, job_id=claim.job_id, now=now)
    with transaction(engine) as session:
        if give_back == "expired":
            jobs.requeue_expired(session, now=now + timedelta(seconds=61), max_attempts=3)
        elif give_back == "released":
            assert jobs.release_to_queue(session, **lease, now=now) == "cancelled"
        else:
            crash = jobs.release_after_crash(session, **lease, message="m", max_attempts=3, now=now)
            assert crash == "cancelled"
    assert read(engine, claim.job_id).status == "cancelled"


def test_a_release_uses_no_attempt_up_and_crashes_do(engine: Engine, queued: MakeJob, now: datetime) -> None:
    job_id = queued()
    statuses = []
    for attempt in range(1, 8):
        with transaction(engine) as session:
            claim = jobs.claim_job(session, job_id=job_id, worker="w", now=now, lease_seconds=60)
            assert claim is not None
            assert claim.attempt == attempt
            lease = {"job_id": job_id, "lease_token": claim.lease_token, "now": now}
            if attempt % 2:
                statuses.append(jobs.release_to_queue(session, **lease))
            else:
                statuses.append(jobs.release_after_crash(session, **lease, message="died", max_attempts=3))
        if statuses[-1] == "failed":
            break
    assert statuses == ["queued"] * 5 + ["failed"]
    job = read(engine, job_id)
    assert (job.reason, job.message, job.attempts_used) == ("trainer_crashed", "died", 3)
    reasons = [t.reason for t in job.transitions if t.status == "queued"]
    assert reasons == [None, *["worker_stopped", "trainer_crashed"] * 2, "worker_stopped"]


@pytest.mark.parametrize(("steps", "used"), [([10, 20, 30], [0, 0, 0]), ([10, 10, 10], [0, 1, 2])])
def test_an_attempt_that_got_further_than_those_before_gives_all_attempts_back(
    engine: Engine, queued: MakeJob, now: datetime, steps: list[int], used: list[int]
) -> None:
    job_id = queued()
    for attempt, step in enumerate(steps):
        with transaction(engine) as session:
            claim = jobs.claim_job(session, job_id=job_id, worker="w", now=now, lease_seconds=60)
            assert claim is not None
        lease = {"job_id": job_id, "lease_token": claim.lease_token, "now": now}
        file = NewArtifact(
            path="checkpoints/m", kind="checkpoint_file", step=step, key=f"{attempt}", size=1, sha256="0" * 64
        )
        with transaction(engine) as session:
            add_artifacts(session, **lease, artifacts=[file], event=None)
        assert read(engine, job_id).attempts_used == used[attempt]
        with transaction(engine) as session:
            status = jobs.release_after_crash(session, **lease, message="died", max_attempts=3)
        assert status == ("failed" if used[attempt] == 2 else "queued")


def test_the_last_event_of_every_ending_ends_the_job(
    engine: Engine, running: MakeClaim, now: datetime
) -> None:
    for name in ("succeed", "fail", "release"):
        claim = running()
        with transaction(engine) as session:
            if name == "release":
                jobs.request_cancel(session, job_id=claim.job_id, now=now)
            stale_writes(claim, now)[name](session)
        with transaction(engine) as session:
            events = list_events(session, claim.job_id).items
            assert [ends_the_job(event) for event in events[-2:]] == [False, True]
            assert job_queries.get_job(session, claim.job_id).status in TERMINAL_STATUSES


def test_taking_the_next_job_reads_one_row_however_many_wait(
    engine: Engine, queued: MakeJob, now: datetime
) -> None:
    queued()
    with engine.begin() as connection:
        columns = ", ".join(c.name for c in Job.__table__.columns if c.name != "id")
        connection.exec_driver_sql(
            f"INSERT INTO jobs (id, {columns}) SELECT gen_random_uuid(), {columns} FROM jobs,"
            " generate_series(1, 5000)"
        )
        connection.exec_driver_sql("ANALYZE jobs")
    statements: list[tuple[str, Any]] = []

    @event.listens_for(engine, "before_cursor_execute")
    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        statements.append((statement, parameters))

    with transaction(engine) as session:
        assert turns.claim_next(session, queue="cpu", worker="w", now=now, lease_seconds=60) is not None
    statement, parameters = next(each for each in statements if "SKIP LOCKED" in each[0])
    with engine.connect() as connection:
        plan = connection.exec_driver_sql(f"EXPLAIN {statement}", parameters).scalars().all()
    assert any("ix_jobs_turn" in line for line in plan), plan
    assert not any("Sort" in line for line in plan), plan
