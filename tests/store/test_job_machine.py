"""The state machine against a model of it, under random sequences of moves on a real Postgres."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from core.spec import DistillationSpec
from store import jobs
from store.database import transaction
from store.endings import Ending
from store.errors import JobFinishedError, LeaseLostError
from store.events import NewEvent, list_events
from store.leases import heartbeat, record_events
from store.models import TERMINAL_STATUSES

LEASE_SECONDS = 60
MAX_ATTEMPTS = 2
STALE = st.booleans()


class JobMachine(RuleBasedStateMachine):
    """One job; ``self`` is the model of what the database must say."""

    engine: Engine

    @initialize()
    def create(self) -> None:
        self.now = datetime(2026, 3, 1, tzinfo=UTC)
        with transaction(self.engine) as session:
            job = jobs.create_job(session, spec=DistillationSpec(teacher="t"), queue="cpu", now=self.now)
        self.job_id = job.id
        self.status = "queued"
        self.token = self.used = self.position = 0
        self.lease_end = self.now
        self.cancel_requested = False
        self.seen_tokens = [0]

    def lease(self, stale: bool) -> dict[str, object]:
        return {"job_id": self.job_id, "lease_token": self.token - stale}

    def holds(self, stale: bool) -> bool:
        return self.status == "running" and not stale

    def write(self, stale: bool, action: object, after: str | None = None) -> None:
        """Write under a lease; it must succeed exactly when the lease is the current one."""
        try:
            with transaction(self.engine) as session:
                action(session)  # type: ignore[operator]
            assert self.holds(stale)
            self.status = after or self.status
        except LeaseLostError:
            assert not self.holds(stale)

    def given_back(self, used: int) -> str:
        if self.cancel_requested:
            return "cancelled"
        return "failed" if used and self.used + used >= MAX_ATTEMPTS else "queued"

    @rule()
    def claim(self) -> None:
        with transaction(self.engine) as session:
            claim = jobs.claim_job(
                session, job_id=self.job_id, worker="w", now=self.now, lease_seconds=LEASE_SECONDS
            )
        assert (claim is not None) == (self.status == "queued")
        if claim is not None:
            assert claim.lease_token > self.token
            self.token, self.status, self.position = claim.lease_token, "running", 0
            self.lease_end = self.now + timedelta(seconds=LEASE_SECONDS)

    @rule(stale=STALE)
    def beat(self, stale: bool) -> None:
        def action(session: Session) -> None:
            reply = heartbeat(session, **self.lease(stale), now=self.now, lease_seconds=LEASE_SECONDS)
            assert reply.cancel_requested == self.cancel_requested

        self.write(stale, action)
        if self.holds(stale):
            self.lease_end = self.now + timedelta(seconds=LEASE_SECONDS)

    @rule(stale=STALE, count=st.integers(1, 3), repeated=st.booleans())
    def record(self, stale: bool, count: int, repeated: bool) -> None:
        events = [NewEvent("warning", {"message": str(index)}) for index in range(count)]
        for _ in range(1 + repeated):

            def action(session: Session) -> None:
                record_events(
                    session, **self.lease(stale), events=events, position=self.position + 1, now=self.now
                )

            self.write(stale, action)
        if self.holds(stale):
            self.position += 1

    @rule(stale=STALE)
    def succeed(self, stale: bool) -> None:
        self.write(
            stale,
            lambda s: jobs.finish_succeeded(s, **self.lease(stale), result={"a": 1}, now=self.now),
            "succeeded",
        )

    @rule(stale=STALE)
    def fail(self, stale: bool) -> None:
        ending = Ending("diverged", "message", "hint")
        self.write(
            stale,
            lambda s: jobs.finish_failed(s, **self.lease(stale), ending=ending, now=self.now),
            "failed",
        )

    @rule(stale=STALE)
    def cancelled_by_worker(self, stale: bool) -> None:
        self.write(stale, lambda s: jobs.finish_cancelled(s, **self.lease(stale), now=self.now), "cancelled")

    @rule(stale=STALE)
    def release(self, stale: bool) -> None:
        self.write(
            stale,
            lambda s: jobs.release_to_queue(s, **self.lease(stale), now=self.now),
            self.given_back(0),
        )

    @rule(stale=STALE)
    def crash(self, stale: bool) -> None:
        held = self.holds(stale)
        self.write(
            stale,
            lambda s: jobs.release_after_crash(
                s, **self.lease(stale), message="m", max_attempts=MAX_ATTEMPTS, now=self.now
            ),
            self.given_back(1),
        )
        self.used += held

    @rule()
    def ask_to_cancel(self) -> None:
        try:
            with transaction(self.engine) as session:
                jobs.request_cancel(session, job_id=self.job_id, now=self.now)
        except JobFinishedError:
            assert self.status in TERMINAL_STATUSES
            return
        if self.status == "queued":
            self.status = "cancelled"
        else:
            self.cancel_requested = True

    @rule(seconds=st.sampled_from([1, LEASE_SECONDS // 2, LEASE_SECONDS + 1]))
    def time_passes(self, seconds: int) -> None:
        self.now += timedelta(seconds=seconds)

    @rule()
    def reconcile(self) -> None:
        with transaction(self.engine) as session:
            taken = jobs.requeue_expired(session, now=self.now, max_attempts=MAX_ATTEMPTS)
        expired = self.status == "running" and self.lease_end < self.now
        assert (self.job_id in taken) == expired
        if expired:
            self.status = self.given_back(1)
            self.used += 1

    @invariant()
    def the_database_agrees(self) -> None:
        with transaction(self.engine) as session:
            job = jobs.get_job(session, self.job_id)
            events = list_events(session, self.job_id, limit=1_000).items
        assert job.status == self.status
        assert (job.lease_token, job.attempt, job.attempts_used) == (self.token, self.token, self.used)
        assert job.cancel_requested == self.cancel_requested
        self.seen_tokens.append(job.lease_token)
        assert self.seen_tokens == sorted(self.seen_tokens)
        path = [transition.status for transition in job.transitions]
        assert path[0] == "queued"
        assert path[-1] == job.status
        assert all(after in jobs.ALLOWED_MOVES[before] for before, after in pairwise(path))
        assert [event.sequence for event in events] == list(range(1, len(events) + 1))
        assert job.last_sequence == len(events)
        told = [(e.sequence, e.data["status"]) for e in events if e.type == "status"]
        assert told == [(t.sequence, t.status) for t in job.transitions]


def test_random_moves_keep_the_job_and_its_history_true(engine: Engine) -> None:
    machine = type("BoundJobMachine", (JobMachine,), {"engine": engine})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=30,
            stateful_step_count=20,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )
