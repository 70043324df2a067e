"""The reconciler at times that the tests choose, with a real broker."""

import threading
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta

import pytest
import redis
from sqlalchemy import Engine, text

from core.spec import DistillationSpec
from store import job_queries, jobs, reconciler
from store.database import Session, server_now, transaction
from store.errors import UnavailableError
from store.job_options import JobOptions
from store.jobs import Claim
from store.leases import heartbeat
from store.queue import count_hints, ping, send_job_hint
from store.reconciler import _LOCK_KEY, Reconciled, reconcile_once, run_reconciler
from store.settings import Settings

MakeJob = Callable[[], str]
MakeClaim = Callable[[], Claim]
MINUTE = timedelta(minutes=1)


@pytest.fixture
def broker_down(settings: Settings, unused_url: str) -> Settings:
    return settings.model_copy(update={"redis_url": unused_url})


@pytest.fixture
def reconcile(engine: Engine, settings: Settings) -> Iterator[Callable[..., list[Reconciled | None]]]:
    """Starts a reconciler that makes pass after pass; what each of them did."""
    stop = threading.Event()
    threads: list[threading.Thread] = []

    def start(**changes: float) -> list[Reconciled | None]:
        changed = settings.model_copy(update={"reconcile_seconds": 0.02, **changes})
        passes: list[Reconciled | None] = []
        thread = threading.Thread(target=run_reconciler, args=(engine, changed, stop, passes.append))
        thread.start()
        threads.append(thread)
        return passes

    yield start
    stop.set()
    for thread in threads:
        thread.join()


@pytest.fixture
def unused_url() -> str:
    return "redis://127.0.0.1:1/0"  # nothing listens on port 1


def test_a_lease_is_taken_back_only_once_it_has_ended(
    engine: Engine, settings: Settings, running: MakeClaim, now: datetime
) -> None:
    claim = running()
    assert reconcile_once(engine, settings, now + MINUTE) == Reconciled([], [])
    with transaction(engine) as session:
        lease = {"job_id": claim.job_id, "lease_token": claim.lease_token}
        heartbeat(session, **lease, now=now + MINUTE, lease_seconds=60)
    assert reconcile_once(engine, settings, now + 2 * MINUTE) == Reconciled([], [])
    late = now + 2 * MINUTE + timedelta(seconds=1)
    assert reconcile_once(engine, settings, late) == Reconciled([claim.job_id], [claim.job_id])
    with transaction(engine) as session:
        job = job_queries.get_job(session, claim.job_id)
    assert (job.status, job.attempts_used, job.transitions[-1].reason) == ("queued", 1, "worker_lost")


def test_a_job_whose_attempts_are_used_up_fails_and_stays_failed(
    engine: Engine, settings: Settings, queued: MakeJob, now: datetime
) -> None:
    job_id = queued()
    for attempt in range(1, settings.max_attempts + 1):
        with transaction(engine) as session:
            claim = jobs.claim_job(session, job_id=job_id, worker="w", now=now, lease_seconds=60)
            assert claim is not None
            assert claim.attempt == attempt
        now += 2 * MINUTE
        report = reconcile_once(engine, settings, now)
        assert report is not None
        assert report.taken_back == [job_id]
    with transaction(engine) as session:
        job = job_queries.get_job(session, job_id)
        assert (job.status, job.reason) == ("failed", "worker_lost")
        assert job.hint
    assert reconcile_once(engine, settings, now + MINUTE) == Reconciled([], [])


def test_a_lost_hint_is_sent_again_and_a_waiting_one_is_not(
    engine: Engine, settings: Settings, queued: MakeJob, now: datetime
) -> None:
    job_id = queued()
    # The API's own message may still be on its way.
    assert reconcile_once(engine, settings, now) == Reconciled([], [])
    assert reconcile_once(engine, settings, now + MINUTE) == Reconciled([], [job_id])
    assert count_hints(settings, "cpu") == 1
    # It waits in the broker: workers are busy, more messages would not help.
    assert reconcile_once(engine, settings, now + 2 * MINUTE) == Reconciled([], [])
    with redis.Redis.from_url(settings.redis_url) as client:
        client.flushdb()
    assert reconcile_once(engine, settings, now + 3 * MINUTE) == Reconciled([], [job_id])
    assert count_hints(settings, "cpu") == 1


def test_hints_that_outlived_their_jobs_delay_others_only_until_they_are_drained(
    engine: Engine, settings: Settings, queued: MakeJob, now: datetime
) -> None:
    job_id = queued()
    send_job_hint(settings, "a-job-long-gone", "cpu")
    assert reconcile_once(engine, settings, now + MINUTE) == Reconciled([], [])
    with redis.Redis.from_url(settings.redis_url) as client:
        client.lpop("cpu")
    assert reconcile_once(engine, settings, now + MINUTE) == Reconciled([], [job_id])


def test_a_job_whose_time_has_not_come_gets_no_hint(
    engine: Engine, settings: Settings, spec: DistillationSpec, now: datetime
) -> None:
    options = JobOptions(not_before=now + timedelta(hours=1))
    with transaction(engine) as session:
        job_id = jobs.create_job(session, spec=spec, options=options, queue="cpu", now=now).id
    assert reconcile_once(engine, settings, now + MINUTE) == Reconciled([], [])
    assert reconcile_once(engine, settings, now + timedelta(hours=1)) == Reconciled([], [job_id])


def test_a_worker_that_goes_on_over_the_time_loses_the_job(
    engine: Engine, settings: Settings, spec: DistillationSpec, now: datetime
) -> None:
    with transaction(engine) as session:
        options = JobOptions(max_runtime_s=100)
        job_id = jobs.create_job(session, spec=spec, options=options, queue="cpu", now=now).id
        claim = jobs.claim_job(session, job_id=job_id, worker="w", now=now, lease_seconds=10_000)
    assert claim is not None
    # Its trainer writes a checkpoint, and that is stored, before or after its server was away.
    slack = timedelta(seconds=2 * settings.cancel_grace_seconds + settings.upload_patience_seconds)
    assert reconcile_once(engine, settings, now + timedelta(seconds=100) + slack) == Reconciled([], [])
    late = reconcile_once(engine, settings, now + timedelta(seconds=101) + slack)
    assert late == Reconciled([], [], over_time=[job_id])
    with transaction(engine) as session:
        job = job_queries.get_job(session, job_id)
    assert (job.status, job.reason) == ("failed", "max_runtime")


def test_requests_that_a_worker_of_the_release_before_did_not_heed_are_settled(
    engine: Engine, settings: Settings, queued: MakeJob, now: datetime
) -> None:
    wishes = {queued(): "cancel", queued(): "pause"}
    with engine.begin() as connection:
        for job_id, wish in wishes.items():
            connection.execute(
                text(f"UPDATE jobs SET {wish}_requested = true WHERE id = :id"), {"id": job_id}
            )
    for job_id in wishes:
        with transaction(engine) as session:
            assert jobs.claim_job(session, job_id=job_id, worker="w", now=now, lease_seconds=60) is None
    report = reconcile_once(engine, settings, now + MINUTE)
    assert report == Reconciled([], [], settled=sorted(wishes))
    with transaction(engine) as session:
        statuses = [job_queries.get_job(session, job_id).status for job_id in wishes]
    assert statuses == ["cancelled", "paused"]


def test_only_one_pass_runs_at_a_time(
    engine: Engine, settings: Settings, running: MakeClaim, now: datetime
) -> None:
    running()
    with engine.connect() as other, other.begin():
        other.execute(text(f"SELECT pg_advisory_xact_lock({_LOCK_KEY})"))
        assert reconcile_once(engine, settings, now + 2 * MINUTE) is None
    assert reconcile_once(engine, settings, now + 2 * MINUTE) is not None


def test_leases_are_taken_back_while_the_broker_is_down(
    engine: Engine, broker_down: Settings, running: MakeClaim, now: datetime
) -> None:
    claim = running()
    report = reconcile_once(engine, broker_down, now + 2 * MINUTE)
    assert report == Reconciled([claim.job_id], [])


def test_a_broker_that_is_down_is_said_to_be(broker_down: Settings) -> None:
    for action in (
        lambda: send_job_hint(broker_down, "job", "cpu"),
        lambda: count_hints(broker_down, "cpu"),
        lambda: ping(broker_down),
    ):
        with pytest.raises(UnavailableError):
            action()


def test_the_thread_takes_jobs_back_and_stops(
    engine: Engine,
    running: MakeClaim,
    reconcile: Callable[..., list[Reconciled | None]],
    eventually: Callable[[Callable[[], object]], object],
) -> None:
    with transaction(engine) as session:
        assert server_now(session) > datetime(2026, 3, 1).astimezone()
    claim = running()  # its lease ended long ago by the server's clock
    reconcile(heartbeat_seconds=0.01)

    def taken_back() -> bool:
        with transaction(engine) as session:
            return job_queries.get_job(session, claim.job_id).status == "queued"

    eventually(taken_back)


def test_no_job_is_taken_back_before_workers_could_beat_again(
    engine: Engine,
    running: MakeClaim,
    queued: MakeJob,
    reconcile: Callable[..., list[Reconciled | None]],
    eventually: Callable[[Callable[[], object]], object],
) -> None:
    claim = running()
    job_id = queued()
    passes = reconcile(heartbeat_seconds=3_600)
    eventually(lambda: len(passes) >= 3)
    assert [made for made in passes if made is None or made.taken_back] == []
    assert [made.hinted for made in passes if made and made.hinted] == [[job_id]]
    with transaction(engine) as session:
        assert job_queries.get_job(session, claim.job_id).status == "running"


def test_an_outage_begins_the_wait_for_beats_anew(
    running: MakeClaim,
    reconcile: Callable[..., list[Reconciled | None]],
    eventually: Callable[[Callable[[], object]], object],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = SteadyClock()
    monkeypatch.setattr(reconciler, "time", clock)
    monkeypatch.setattr(reconciler, "server_now", clock.answering(server_now))
    passes = reconcile(heartbeat_seconds=60)
    eventually(lambda: passes)
    clock.seconds = 119
    clock.fail_once()
    eventually(lambda: clock.failed)
    seen = len(passes)
    eventually(lambda: len(passes) > seen)  # the wait began with the first pass that Postgres answered
    claim = running()
    clock.seconds = 238
    seen = len(passes)
    eventually(lambda: len(passes) >= seen + 3)
    assert [made for made in passes if made and made.taken_back] == []
    clock.seconds = 239
    eventually(lambda: [made for made in passes if made and made.taken_back == [claim.job_id]])


class SteadyClock:
    """A monotonic clock that stands still until it is set, and a Postgres that can be away for one pass."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.failed = False
        self._shall_fail = False

    def monotonic(self) -> float:
        return self.seconds

    def fail_once(self) -> None:
        self._shall_fail = True

    def answering(self, answer: Callable[[Session], datetime]) -> Callable[[Session], datetime]:
        def tell(session: Session) -> datetime:
            if self._shall_fail:
                self._shall_fail, self.failed = False, True
                raise UnavailableError("Postgres does not answer")
            return answer(session)

        return tell


def test_jobs_are_taken_back_though_nothing_can_be_forgotten(
    running: MakeClaim,
    reconcile: Callable[..., list[Reconciled | None]],
    eventually: Callable[[Callable[[], object]], object],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise UnavailableError("Postgres gave up waiting")

    monkeypatch.setattr(reconciler, "forget_expired", fail)
    claim = running()
    passes = reconcile(heartbeat_seconds=0.01)
    eventually(lambda: [made for made in passes if made and made.taken_back == [claim.job_id]])
