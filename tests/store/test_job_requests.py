"""What users ask of a job: to pause, resume, try again, go away; and the options beside its specification."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, event, select, text

from core.spec import DistillationSpec, TrainingSpec
from store import job_queries, jobs, turns
from store.artifacts import list_checkpoints
from store.database import transaction
from store.deletion import remove_rows
from store.endings import EXPLANATIONS, Ending
from store.errors import (
    CancelRequestedError,
    JobFinishedError,
    JobNotEndedError,
    JobRunningError,
    NotFoundError,
    UnavailableError,
)
from store.events import NewEvent, list_events
from store.job_options import JobOptions
from store.jobs import Claim
from store.leases import NewArtifact, add_artifacts, heartbeat, record_events
from store.micro_batch import smaller_micro_batch
from store.models import REASONS, DeletedJob, Job

MakeJob = Callable[[], str]
MakeClaim = Callable[[], Claim]


def read(engine: Engine, job_id: str) -> Job:
    with transaction(engine) as session:
        return job_queries.get_job(session, job_id)


def lease(claim: Claim, now: datetime) -> dict[str, Any]:
    return {"job_id": claim.job_id, "lease_token": claim.lease_token, "now": now}


def claim(engine: Engine, job_id: str, now: datetime) -> Claim | None:
    with transaction(engine) as session:
        return jobs.claim_job(session, job_id=job_id, worker="w", now=now, lease_seconds=60)


def submit(engine: Engine, spec: DistillationSpec, now: datetime, queue: str = "cpu", **options: Any) -> str:
    with transaction(engine) as session:
        return jobs.create_job(session, spec=spec, options=JobOptions(**options), queue=queue, now=now).id


def test_every_reason_has_a_sentence_and_a_hint() -> None:
    assert set(EXPLANATIONS) == set(REASONS)
    for known in EXPLANATIONS.values():
        assert known.sentence.endswith(".")
        assert known.hint.endswith(".")


def test_a_queued_job_pauses_at_once_and_is_not_taken(engine: Engine, queued: MakeJob, now: datetime) -> None:
    job_id = queued()
    for _ in range(2):
        with transaction(engine) as session:
            job = jobs.request_pause(session, job_id=job_id, now=now)
        assert (job.status, job.finished_at, job.reason) == ("paused", None, None)
    assert claim(engine, job_id, now) is None
    for _ in range(2):
        with transaction(engine) as session:
            assert jobs.resume_job(session, job_id=job_id, now=now).status == "queued"
    assert claim(engine, job_id, now) is not None
    reasons = [transition.reason for transition in read(engine, job_id).transitions]
    assert reasons == [None, "paused_by_user", "resumed_by_user", None]


def test_a_running_job_is_asked_to_pause_once_and_pauses_when_given_back(
    engine: Engine, running: MakeClaim, now: datetime
) -> None:
    held = running()
    for _ in range(2):
        with transaction(engine) as session:
            job = jobs.request_pause(session, job_id=held.job_id, now=now)
            assert (job.status, job.pause_requested) == ("running", True)
    with transaction(engine) as session:
        assert heartbeat(session, **lease(held, now), lease_seconds=60).stop == "pause"
        assert jobs.release_to_queue(session, **lease(held, now)) == "paused"
    job = read(engine, held.job_id)
    assert (job.status, job.pause_requested, job.attempts_used) == ("paused", False, 0)
    with transaction(engine) as session:
        types = [event.type for event in list_events(session, held.job_id).items]
    assert types == ["status", "status", "pause_requested", "status"]


def test_a_pause_withdrawn_in_time_lets_the_job_go_on(
    engine: Engine, running: MakeClaim, now: datetime
) -> None:
    held = running()
    with transaction(engine) as session:
        jobs.request_pause(session, job_id=held.job_id, now=now)
        job = jobs.resume_job(session, job_id=held.job_id, now=now)
    assert (job.status, job.pause_requested) == ("running", False)
    with transaction(engine) as session:
        assert heartbeat(session, **lease(held, now), lease_seconds=60).stop is None
        # A worker that had heard of it gives the job back all the same.
        assert jobs.release_to_queue(session, **lease(held, now)) == "queued"


def test_a_cancel_outweighs_a_pause_and_ends_a_paused_job(
    engine: Engine, running: MakeClaim, queued: MakeJob, now: datetime
) -> None:
    held = running()
    with transaction(engine) as session:
        jobs.request_pause(session, job_id=held.job_id, now=now)
        jobs.request_cancel(session, job_id=held.job_id, now=now)
        assert heartbeat(session, **lease(held, now), lease_seconds=60).stop == "cancel"
    with pytest.raises(CancelRequestedError), transaction(engine) as session:
        jobs.request_pause(session, job_id=held.job_id, now=now)
    with transaction(engine) as session:
        assert jobs.release_to_queue(session, **lease(held, now)) == "cancelled"
    job_id = queued()
    with transaction(engine) as session:
        jobs.request_pause(session, job_id=job_id, now=now)
        assert jobs.request_cancel(session, job_id=job_id, now=now).status == "cancelled"
    for move in (jobs.request_pause, jobs.resume_job):
        with pytest.raises(JobFinishedError), transaction(engine) as session:
            move(session, job_id=job_id, now=now)


def store_checkpoint(engine: Engine, held: Claim, step: int, now: datetime) -> None:
    key = f"{held.job_id}/{held.attempt}/{step}"
    artifact = NewArtifact(path=key, kind="checkpoint_file", step=step, key=key, size=1, sha256="0")
    with transaction(engine) as session:
        add_artifacts(session, **lease(held, now), artifacts=[artifact], event=None)


@pytest.mark.parametrize("from_scratch", [False, True])
def test_a_retry_has_all_attempts_and_the_whole_time_again(
    engine: Engine, spec: DistillationSpec, now: datetime, from_scratch: bool
) -> None:
    job_id = submit(engine, spec, now, max_runtime_s=100)
    held = claim(engine, job_id, now)
    assert held is not None
    store_checkpoint(engine, held, 7, now)
    later = now + timedelta(seconds=50)
    with transaction(engine) as session:
        jobs.release_after_crash(session, **lease(held, later), message="died", max_attempts=1)
    ended = read(engine, job_id)
    assert (ended.status, ended.runtime_s, ended.attempts_used) == ("failed", 50, 1)
    with transaction(engine) as session:
        job = jobs.retry_job(session, job_id=job_id, from_scratch=from_scratch, now=later)
    assert (job.status, job.runtime_s, job.attempts_used, job.progress) == ("queued", 0, 0, 0)
    assert (job.reason, job.message, job.hint, job.finished_at) == (None, None, None, None)
    held = claim(engine, job_id, later)
    assert held is not None
    with transaction(engine) as session:
        found = list_checkpoints(session, job_id, after_attempt=held.scratch_attempt)
    assert [checkpoint.step for checkpoint in found] == ([] if from_scratch else [7])
    with pytest.raises(JobNotEndedError), transaction(engine) as session:
        jobs.retry_job(session, job_id=job_id, from_scratch=False, now=later)
    with transaction(engine) as session:
        jobs.finish_succeeded(session, **lease(held, later), result={})
    with pytest.raises(JobFinishedError), transaction(engine) as session:
        jobs.retry_job(session, job_id=job_id, from_scratch=False, now=later)


def test_a_deleted_job_leaves_nothing_but_a_note_to_remove_its_objects(
    engine: Engine, running: MakeClaim, now: datetime
) -> None:
    held = running()
    store_checkpoint(engine, held, 7, now)
    with pytest.raises(JobRunningError), transaction(engine) as session:
        jobs.delete_job(session, job_id=held.job_id, now=now)
    with transaction(engine) as session:
        jobs.release_to_queue(session, **lease(held, now))
    for _ in range(2):
        with transaction(engine) as session:
            jobs.delete_job(session, job_id=held.job_id, now=now)
    with pytest.raises(NotFoundError):
        read(engine, held.job_id)
    with engine.connect() as connection:  # as the release before sees it
        left = connection.execute(text("SELECT status, finished_at, deleted_at FROM jobs")).one()
    assert tuple(left) == ("cancelled", now, now)
    remove_rows(engine, held.job_id)
    with transaction(engine) as session:
        for table in ("jobs", "job_events", "job_transitions", "artifacts"):
            assert session.execute(text(f"SELECT count(*) FROM {table}")).scalar_one() == 0
        assert session.scalars(select(DeletedJob.job_id)).all() == [held.job_id]
    with pytest.raises(NotFoundError), transaction(engine) as session:
        jobs.delete_job(session, job_id="019ab2c4-7f1e-7c3a-9d52-0b6a4be1d9aa", now=now)


def test_a_deleted_job_of_many_points_is_removed_in_parts_however_often_that_breaks_off(
    engine: Engine, running: MakeClaim, now: datetime
) -> None:
    """What a long training leaves is more than one statement can delete in its time."""
    held, at_once = running(), 100
    values = {f"loss_{name}": 0.5 for name in "abc"}
    numbers = [NewEvent("metrics", {"step": step, "values": values}) for step in range(150)]
    with transaction(engine) as session:
        record_events(session, **lease(held, now), events=numbers, position=1)
        jobs.release_to_queue(session, **lease(held, now))
    with transaction(engine) as session:
        jobs.delete_job(session, job_id=held.job_id, now=now)
    deleted: list[tuple[str, int]] = []

    def note(_: Any, cursor: Any, statement: str, *__: Any) -> None:
        if statement.startswith("DELETE"):
            deleted.append((statement.split()[2], cursor.rowcount))
            if len(deleted) in (2, 5):
                raise UnavailableError("Postgres is restarted.")

    event.listen(engine, "after_cursor_execute", note)
    for _ in range(2):
        with pytest.raises(UnavailableError):
            remove_rows(engine, held.job_id, rows_at_once=at_once)
        with pytest.raises(NotFoundError):
            read(engine, held.job_id)
        assert claim(engine, held.job_id, now) is None
    remove_rows(engine, held.job_id, rows_at_once=at_once)
    event.remove(engine, "after_cursor_execute", note)
    with transaction(engine) as session:
        for table in ("jobs", "job_events", "metric_points"):
            assert session.execute(text(f"SELECT count(*) FROM {table}")).scalar_one() == 0
    assert max(rows for _, rows in deleted) == at_once
    assert deleted[-1] == ("jobs", 1)


def test_a_job_that_is_not_deleted_keeps_its_rows(
    engine: Engine, queued: Callable[[], str], now: datetime
) -> None:
    job_id = queued()
    remove_rows(engine, job_id)
    assert len(read(engine, job_id).transitions) == 1


def test_the_most_urgent_job_of_a_queue_goes_first_then_the_oldest(
    engine: Engine, spec: DistillationSpec, now: datetime
) -> None:
    second = timedelta(seconds=1)
    usual = submit(engine, spec, now)
    low = submit(engine, spec, now, priority=-1)
    urgent = submit(engine, spec, now + second, priority=5)
    later = submit(engine, spec, now + 2 * second)
    other = submit(engine, spec, now, queue="other", priority=50)
    not_yet = submit(engine, spec, now, priority=50, not_before=now + timedelta(hours=1))
    taken = []
    for _ in range(5):
        with transaction(engine) as session:
            next_one = turns.claim_next(
                session, queue="cpu", worker="w", now=now + 3 * second, lease_seconds=60
            )
            taken.append(next_one and next_one.job_id)
    assert taken == [urgent, usual, later, low, None]
    assert read(engine, other).status == "queued"
    with transaction(engine) as session:
        due = turns.claim_next(
            session, queue="cpu", worker="w", now=now + timedelta(hours=1), lease_seconds=60
        )
    assert due is not None
    assert due.job_id == not_yet


def test_a_job_that_another_claim_holds_is_passed_over(
    engine: Engine, queued: MakeJob, now: datetime
) -> None:
    first, second = queued(), queued()
    with engine.connect() as other, other.begin():
        other.execute(text("SELECT 1 FROM jobs WHERE id = :id FOR UPDATE"), {"id": min(first, second)})
        with transaction(engine) as session:
            taken = turns.claim_next(session, queue="cpu", worker="w", now=now, lease_seconds=60)
    assert taken is not None
    assert taken.job_id == max(first, second)


def test_time_in_the_queue_does_not_count_and_time_over_ends_the_job(
    engine: Engine, spec: DistillationSpec, now: datetime
) -> None:
    job_id = submit(engine, spec, now, max_runtime_s=50)
    moment = now + timedelta(hours=5)
    for expected in ("queued", "failed"):
        held = claim(engine, job_id, moment)
        assert held is not None
        with transaction(engine) as session:
            assert heartbeat(session, **lease(held, moment), lease_seconds=60).stop is None
            moment += timedelta(seconds=30)
            late = heartbeat(session, **lease(held, moment), lease_seconds=60).stop
            assert late == (None if expected == "queued" else "max_runtime")
            assert jobs.release_to_queue(session, **lease(held, moment)) == expected
        moment += timedelta(hours=5)
    job = read(engine, job_id)
    assert (job.reason, job.runtime_s, job.attempts_used) == ("max_runtime", 60, 0)
    assert job.hint


def test_a_lost_worker_is_charged_its_lease_and_no_more(
    engine: Engine, spec: DistillationSpec, now: datetime
) -> None:
    job_id = submit(engine, spec, now, max_runtime_s=100)
    assert claim(engine, job_id, now) is not None
    with transaction(engine) as session:
        jobs.requeue_expired(session, now=now + timedelta(hours=9), max_attempts=3)
    job = read(engine, job_id)
    assert (job.status, job.runtime_s) == ("queued", 60)


def test_the_first_lack_of_memory_halves_the_micro_batch_and_costs_no_attempt(
    engine: Engine, now: datetime
) -> None:
    spec = DistillationSpec(teacher="t", training=TrainingSpec(batch_size=12))
    job_id = submit(engine, spec, now)
    ending = Ending("out_of_memory", "The memory is used up.", "Use less.")
    seen = []
    while read(engine, job_id).status == "queued":
        held = claim(engine, job_id, now)
        assert held is not None
        seen.append(held.spec["training"]["micro_batch_size"])
        with transaction(engine) as session:
            jobs.release_after_out_of_memory(
                session, **lease(held, now), ending=ending, processes=1, max_attempts=2
            )
    assert seen == [None, 6, 6]
    job = read(engine, job_id)
    assert (job.status, job.reason, job.message) == ("failed", "out_of_memory", "The memory is used up.")
    assert job.spec == spec.model_dump(mode="json")
    with transaction(engine) as session:
        told = [
            event.data["message"] for event in list_events(session, job_id).items if event.type == "warning"
        ]
    assert len(told) == 1
    assert "6 samples instead of 12" in told[0]


@pytest.mark.parametrize(
    ("batch_size", "micro_batch_size", "processes", "smaller"),
    [
        (256, None, 1, 128),
        (15, None, 1, 5),
        (15, 5, 1, 1),
        (7, None, 1, 1),
        (12, 4, 1, 2),
        (1, None, 1, None),
        (8, 1, 1, None),
        (256, None, 8, 16),
        (256, 64, 8, 16),
        (256, 8, 8, 4),
        (15, None, 2, 3),
        (8, None, 8, None),
        (3, None, 4, None),
    ],
)
def test_a_smaller_micro_batch_fills_the_batch_and_halves_what_a_process_passes_at_once(
    batch_size: int, micro_batch_size: int | None, processes: int, smaller: int | None
) -> None:
    training = {"batch_size": batch_size, "micro_batch_size": micro_batch_size}
    assert smaller_micro_batch({"training": training}, processes) == smaller
