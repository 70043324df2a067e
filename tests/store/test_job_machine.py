"""The state machine against a model of it, under random sequences of moves on a real Postgres."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any
from uuid import uuid4

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from core.spec import DistillationSpec, TrainingSpec
from store import job_queries, jobs, turns
from store.database import transaction
from store.endings import Ending
from store.errors import (
    CancelRequestedError,
    JobFinishedError,
    JobNotEndedError,
    JobRunningError,
    LeaseLostError,
)
from store.events import NewEvent, list_events
from store.job_options import JobOptions
from store.leases import heartbeat, record_events
from store.models import TERMINAL_STATUSES

LEASE_SECONDS = 60
SLACK_SECONDS = 40
MAX_ATTEMPTS = 2
STALE = st.sampled_from([False, False, False, True])

# Most moves need a running job, so claims are given the greater chance; what is refused, its share at times.
alive = precondition(lambda self: self.status == "running" or self.token % 4 == 3)
seldom_while_queued = precondition(lambda self: self.status != "queued" or self.token % 4 == 3)


class JobMachine(RuleBasedStateMachine):
    """One job; ``self`` is the model of what the database must say."""

    engine: Engine

    @initialize(max_runtime_s=st.sampled_from([None, 20.0, 100.0]), wait=st.sampled_from([None, 30]))
    def create(self, max_runtime_s: float | None, wait: int | None) -> None:
        self.now = datetime(2026, 3, 1, tzinfo=UTC)
        self.not_before = None if wait is None else self.now + timedelta(seconds=wait)
        self.max_runtime_s = max_runtime_s
        self.queue = str(uuid4())  # the jobs of earlier examples are there still
        spec = DistillationSpec(teacher="t", training=TrainingSpec(batch_size=8))
        options = JobOptions(max_runtime_s=max_runtime_s, not_before=self.not_before)
        with transaction(self.engine) as session:
            job = jobs.create_job(session, spec=spec, options=options, queue=self.queue, now=self.now)
        self.job_id = job.id
        self.status = "queued"
        self.token = self.used = self.position = self.scratch = 0
        self.runtime = 0.0
        self.lease_end = self.claimed_at = self.now
        self.cancel_requested = self.pause_requested = False
        self.micro_batch_size: int | None = None
        self.seen_tokens = [0]

    def lease(self, stale: bool) -> dict[str, Any]:
        return {"job_id": self.job_id, "lease_token": self.token - stale}

    def holds(self, stale: bool) -> bool:
        return self.status == "running" and not stale

    def write(self, stale: bool, action: Callable[[Session], object], after: str | None = None) -> None:
        """Write under a lease; it must succeed exactly when the lease is the current one."""
        try:
            with transaction(self.engine) as session:
                action(session)
        except LeaseLostError:
            assert not self.holds(stale)
            return
        assert self.holds(stale)
        if after is not None:
            self.move(after)

    def move(self, status: str) -> None:
        if self.status == "running" and status in {"queued", "paused"}:
            self.runtime = self.ran()
        self.status, self.pause_requested = status, False

    def ran(self) -> float:
        return self.runtime + max((min(self.now, self.lease_end) - self.claimed_at).total_seconds(), 0)

    def wish(self) -> str | None:
        if self.cancel_requested:
            return "cancel"
        if self.max_runtime_s is not None and self.ran() > self.max_runtime_s:
            return "max_runtime"
        return "pause" if self.pause_requested else None

    def given_back(self, used: int) -> str:
        wish = self.wish()
        if wish in {"cancel", "max_runtime"}:
            return {"cancel": "cancelled", "max_runtime": "failed"}[wish]
        if used and self.used + used >= MAX_ATTEMPTS:
            return "failed"
        return "paused" if wish == "pause" else "queued"

    # Hypothesis leaves some rules out of each example; without a claim hardly anything happens.
    @rule()
    def claim_by_turn(self) -> None:
        self.claim(by_turn=True)

    @rule()
    def claim_by_id(self) -> None:
        self.claim(by_turn=False)

    @precondition(lambda self: self.status == "queued")
    @rule()
    def claim_once_due(self) -> None:
        self.now = max(self.now, self.not_before or self.now)
        self.claim(by_turn=True)

    def claim(self, *, by_turn: bool) -> None:
        terms: dict[str, Any] = {"worker": "w", "now": self.now, "lease_seconds": LEASE_SECONDS}
        with transaction(self.engine) as session:
            claim = (
                turns.claim_next(session, queue=self.queue, **terms)
                if by_turn
                else jobs.claim_job(session, job_id=self.job_id, **terms)
            )
        is_due = self.not_before is None or self.not_before <= self.now
        assert (claim is not None) == (self.status == "queued" and is_due)
        if claim is not None:
            assert claim.lease_token > self.token
            assert claim.scratch_attempt == self.scratch
            assert claim.spec["training"]["micro_batch_size"] == self.micro_batch_size
            self.move("running")
            self.token, self.position, self.claimed_at = claim.lease_token, 0, self.now
            self.lease_end = self.now + timedelta(seconds=LEASE_SECONDS)

    @alive
    @rule(stale=STALE)
    def beat(self, stale: bool) -> None:
        if self.holds(stale):
            self.lease_end = self.now + timedelta(seconds=LEASE_SECONDS)

        def action(session: Session) -> None:
            reply = heartbeat(session, **self.lease(stale), now=self.now, lease_seconds=LEASE_SECONDS)
            assert reply.stop == self.wish()

        self.write(stale, action)

    @alive
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

    # Nothing moves a job that has succeeded: the first attempts of each example are for the other moves.
    @precondition(lambda self: self.status != "running" or self.token > 3)
    @rule(stale=STALE)
    def succeed(self, stale: bool) -> None:
        self.write(
            stale,
            lambda s: jobs.finish_succeeded(s, **self.lease(stale), result={"a": 1}, now=self.now),
            "succeeded",
        )

    @alive
    @rule(stale=STALE)
    def fail(self, stale: bool) -> None:
        ending = Ending("diverged", "message", "hint")
        self.write(
            stale,
            lambda s: jobs.finish_failed(s, **self.lease(stale), ending=ending, now=self.now),
            "failed",
        )

    @alive
    @rule(stale=STALE)
    def release(self, stale: bool) -> None:
        self.write(
            stale,
            lambda s: jobs.release_to_queue(s, **self.lease(stale), now=self.now),
            self.given_back(0),
        )

    @alive
    @rule(stale=STALE)
    def crash(self, stale: bool) -> None:
        held, after = self.holds(stale), self.given_back(1)
        self.write(
            stale,
            lambda s: jobs.release_after_crash(
                s, **self.lease(stale), message="m", max_attempts=MAX_ATTEMPTS, now=self.now
            ),
            after,
        )
        self.used += held

    @alive
    @rule(stale=STALE)
    def run_out_of_memory(self, stale: bool) -> None:
        held, counts = self.holds(stale), self.micro_batch_size is not None
        ending = Ending("out_of_memory", "message", "hint")
        self.write(
            stale,
            lambda s: jobs.release_after_out_of_memory(
                s, **self.lease(stale), ending=ending, processes=1, max_attempts=MAX_ATTEMPTS, now=self.now
            ),
            self.given_back(int(counts)),
        )
        if held:
            self.micro_batch_size = 4
            self.used += counts

    @seldom_while_queued
    @rule()
    def ask_to_cancel(self) -> None:
        try:
            with transaction(self.engine) as session:
                jobs.request_cancel(session, job_id=self.job_id, now=self.now)
        except JobFinishedError:
            assert self.status in TERMINAL_STATUSES
            return
        if self.status == "running":
            self.cancel_requested = True
        else:
            self.move("cancelled")

    @seldom_while_queued
    @rule()
    def ask_to_pause(self) -> None:
        try:
            with transaction(self.engine) as session:
                jobs.request_pause(session, job_id=self.job_id, now=self.now)
        except JobFinishedError:
            assert self.status in TERMINAL_STATUSES
            return
        except CancelRequestedError:
            assert (self.status, self.cancel_requested) == ("running", True)
            return
        if self.status == "queued":
            self.move("paused")
        elif self.status == "running":
            self.pause_requested = True

    @rule()
    def resume(self) -> None:
        try:
            with transaction(self.engine) as session:
                jobs.resume_job(session, job_id=self.job_id, now=self.now)
        except JobFinishedError:
            assert self.status in TERMINAL_STATUSES
            return
        if self.status == "paused":
            self.move("queued")
        self.pause_requested = False

    @rule(from_scratch=st.booleans())
    def retry(self, from_scratch: bool) -> None:
        try:
            with transaction(self.engine) as session:
                jobs.retry_job(session, job_id=self.job_id, from_scratch=from_scratch, now=self.now)
        except JobFinishedError:
            assert self.status == "succeeded"
        except JobNotEndedError:
            assert self.status not in TERMINAL_STATUSES
        else:
            assert self.status in {"failed", "cancelled"}
            self.move("queued")
            self.used, self.runtime, self.micro_batch_size = 0, 0.0, None
            self.cancel_requested = False
            self.scratch = self.token if from_scratch else self.scratch

    @precondition(lambda self: self.status == "running")
    @rule()
    def delete_while_running(self) -> None:
        try:
            with transaction(self.engine) as session:
                jobs.delete_job(session, job_id=self.job_id, now=self.now)
        except JobRunningError:
            return
        raise AssertionError("a running job was deleted")

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
            self.move(self.given_back(1))
            self.used += 1
        with transaction(self.engine) as session:
            ended = jobs.end_over_time(session, now=self.now, slack_seconds=SLACK_SECONDS)
            assert jobs.settle_requests(session, now=self.now) == []
        over_time = (
            self.status == "running"
            and self.max_runtime_s is not None
            and self.ran() > self.max_runtime_s + SLACK_SECONDS
        )
        assert (self.job_id in ended) == over_time
        if over_time:
            self.move(self.given_back(0))

    # Rare as a chance meeting of the rules above, and the only way to a run time that the lease's end caps.
    @precondition(lambda self: self.status == "running")
    @rule(late=st.sampled_from([1, 10, LEASE_SECONDS]))
    def lose_the_worker(self, late: int) -> None:
        self.now = max(self.now, self.lease_end) + timedelta(seconds=late)
        self.reconcile()

    @invariant()
    def the_database_agrees(self) -> None:
        with transaction(self.engine) as session:
            job = job_queries.get_job(session, self.job_id)
            events = list_events(session, self.job_id, limit=1_000).items
        assert job.status == self.status
        assert (job.lease_token, job.attempt, job.attempts_used) == (self.token, self.token, self.used)
        assert job.cancel_requested == self.cancel_requested
        assert job.pause_requested == self.pause_requested
        assert (job.scratch_attempt, job.micro_batch_size) == (self.scratch, self.micro_batch_size)
        assert (job.reason is not None) == (self.status in {"failed", "cancelled"})
        assert abs(job.runtime_s - self.runtime) < 1e-6 or self.status in TERMINAL_STATUSES
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
            max_examples=40,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )
