"""What a lease holder records: events, progress, curves, files."""

import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine

from store import job_queries, jobs
from store.artifacts import get_student_archive, list_artifacts, list_checkpoints
from store.database import transaction
from store.endings import Ending
from store.errors import NotFoundError
from store.events import NewEvent, list_events
from store.jobs import Claim
from store.leases import NewArtifact, Report, add_artifacts, forget_checkpoints, heartbeat, record_events
from store.metrics import list_metric_names, list_metric_points
from store.models import PHASES, ArtifactKind
from store.progress import PHASE_SHARES, overall_progress
from store.unclaimed import take_due
from tests.store.conftest import WHOLE_SPECIFICATION

MakeClaim = Callable[[], Claim]


def lease(claim: Claim, now: datetime) -> dict[str, Any]:
    return {"job_id": claim.job_id, "lease_token": claim.lease_token, "now": now}


def progress(phase: str, done: int, total: int) -> NewEvent:
    data = {"phase": phase, "done": done, "total": total, "unit": "steps", "eta_seconds": 5.0}
    return NewEvent("progress", data)


def test_progress_follows_the_phases_and_never_falls(
    engine: Engine, running: MakeClaim, now: datetime
) -> None:
    claim = running()
    seen = []
    steps = [("captions", 1, 1), ("training", 50, 100), ("training", 40, 100), ("export", 0, 0)]
    for position, step in enumerate(steps, start=1):
        with transaction(engine) as session:
            record_events(session, **lease(claim, now), events=[progress(*step)], position=position)
            job = job_queries.get_job(session, claim.job_id)
        seen.append(job.progress)
        assert (job.phase, job.eta_seconds) == (step[0], 5.0)
    assert seen == sorted(seen)
    assert seen[1] == pytest.approx(0.01 + 0.19 + 0.65 / 2)
    with transaction(engine) as session:
        told = [e.data["progress"] for e in list_events(session, claim.job_id).items if e.type == "progress"]
    assert told == seen


def test_a_beat_takes_a_report_along_once(engine: Engine, running: MakeClaim, now: datetime) -> None:
    claim = running()
    report = Report([progress("training", 50, 100), metrics(50, loss=0.5)], position=9)
    for later in (timedelta(seconds=10), timedelta(seconds=11)):  # the first one's commit was in doubt
        with transaction(engine) as session:
            beat = lease(claim, now + later)
            assert heartbeat(session, **beat, lease_seconds=60, report=report).stop is None
            job = job_queries.get_job(session, claim.job_id)
            assert job.lease_expires_at == now + later + timedelta(seconds=60)
            told = [event.type for event in list_events(session, claim.job_id).items]
        assert told[-2:] == ["progress", "metrics"]
        assert told.count("progress") == 1
        assert (job.phase, job.last_sequence) == ("training", len(told))


def test_a_beat_leaves_the_specification_where_it_is(
    engine: Engine, running: MakeClaim, now: datetime, statements: list[str]
) -> None:
    """Every worker beats again and again, and a specification may hold megabytes of captions."""
    claim = running()
    statements.clear()
    with transaction(engine) as session:
        report = Report([progress("training", 50, 100), metrics(50, loss=0.5)], position=9)
        heartbeat(session, **lease(claim, now), lease_seconds=60, report=report)
    assert any("RETURNING jobs.id" in statement for statement in statements)
    assert not [statement for statement in statements if re.search(WHOLE_SPECIFICATION, statement)]


def test_the_phases_make_up_the_whole_job() -> None:
    assert set(PHASE_SHARES) == set(PHASES)
    for few_step in (False, True):
        assert overall_progress("captions", 0, 10, few_step=few_step) == 0
        assert overall_progress("evaluation", 0, 1, few_step=few_step) == pytest.approx(0.85)
        assert overall_progress("export", 3, 3, few_step=few_step) == pytest.approx(1)
        assert overall_progress("export", 4, 3, few_step=few_step) <= 1
    trained = overall_progress("training", 1, 1, few_step=True)
    assert trained == pytest.approx(overall_progress("few_step", 0, 1, few_step=True))
    assert trained < overall_progress("few_step", 1, 2, few_step=True) < 0.85


def test_a_batch_of_events_offered_twice_is_recorded_once(
    engine: Engine, running: MakeClaim, now: datetime
) -> None:
    claim = running()
    for _ in range(2):
        with transaction(engine) as session:
            events = [NewEvent("warning", {"message": "a"}), NewEvent("warning", {"message": "b"})]
            record_events(session, **lease(claim, now), events=events, position=99)
    with transaction(engine) as session:
        assert [e.sequence for e in list_events(session, claim.job_id).items] == [1, 2, 3, 4]


def test_times_follow_the_numbers_although_a_transaction_began_before_the_one_it_waited_for(
    engine: Engine, running: MakeClaim, now: datetime
) -> None:
    claim, later = running(), now + timedelta(seconds=5)
    with transaction(engine) as session:
        record_events(session, **lease(claim, later), events=[metrics(1, loss=0.5)], position=1)
    with transaction(engine) as session:
        record_events(session, **lease(claim, now), events=[metrics(2, loss=0.4)], position=2)
        jobs.finish_succeeded(session, **lease(claim, now), result={})
    with transaction(engine) as session:
        job = job_queries.get_job(session, claim.job_id)
        times = [event.at for event in list_events(session, claim.job_id).items]
    assert times == sorted(times)
    assert times[-1] == job.transitions[-1].at == job.finished_at == job.updated_at == later


def test_sequences_have_no_gap_under_concurrent_writers(
    engine: Engine, running: MakeClaim, now: datetime
) -> None:
    claim = running()

    def write(number: int) -> None:
        artifact = new_artifact(f"samples/{number}.png", "sample", number)
        with transaction(engine) as session:
            event = NewEvent("sample", {"step": number})
            add_artifacts(session, **lease(claim, now), artifacts=[artifact], event=event)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(write, range(20)))
    with transaction(engine) as session:
        events = list_events(session, claim.job_id, limit=100).items
    assert [event.sequence for event in events] == list(range(1, 23))


def test_event_pages_join_up(engine: Engine, running: MakeClaim, now: datetime) -> None:
    claim = running()
    with transaction(engine) as session:
        events = [NewEvent("warning", {"message": str(index)}) for index in range(5)]
        record_events(session, **lease(claim, now), events=events, position=1)
    seen, after = [], 0
    with transaction(engine) as session:
        while True:
            page = list_events(session, claim.job_id, after=after, limit=3)
            seen += [event.sequence for event in page.items]
            if not page.has_more:
                break
            assert page.next is not None
            after = int(page.next)
    assert seen == list(range(1, 8))


def metrics(step: int, **values: float | None) -> NewEvent:
    return NewEvent("metrics", {"step": step, "values": values})


def test_curves_show_each_step_once_from_the_latest_attempt(
    engine: Engine, running: MakeClaim, now: datetime
) -> None:
    claim = running()
    with transaction(engine) as session:
        first = [metrics(1, loss=1.0), metrics(2, loss=0.9, learning_rate=0.1), metrics(3, loss=None)]
        record_events(session, **lease(claim, now), events=first, position=1)
        jobs.release_to_queue(session, **lease(claim, now))
        again = jobs.claim_job(session, job_id=claim.job_id, worker="w", now=now, lease_seconds=60)
        assert again is not None
        record_events(session, **lease(again, now), events=[metrics(2, loss=0.8)], position=1)
    with transaction(engine) as session:
        points = list_metric_points(session, claim.job_id)
        assert [(p.name, p.step, p.value) for p in points] == [
            ("learning_rate", 2, 0.1),
            ("loss", 1, 1.0),
            ("loss", 2, 0.8),
        ]
        assert list_metric_names(session, claim.job_id) == ["learning_rate", "loss"]
        only = list_metric_points(session, claim.job_id, names=["loss"], after_step=1)
        assert [(p.step, p.value) for p in only] == [(2, 0.8)]


def test_a_job_that_is_tried_again_from_scratch_leaves_its_curves_behind(
    engine: Engine, running: MakeClaim, now: datetime
) -> None:
    claim = running()
    with transaction(engine) as session:
        old = [metrics(step, loss=1.0, rate=0.1) for step in (1, 2)]
        record_events(session, **lease(claim, now), events=old, position=1)
        pictures = [new_artifact("samples/2.png", "sample", 2)]
        add_artifacts(session, **lease(claim, now), artifacts=pictures, event=None)
        jobs.finish_failed(session, **lease(claim, now), ending=Ending(reason="diverged"))

    def shown() -> tuple[list[str], list[tuple[int, float]], int]:
        with transaction(engine) as session:
            points = list_metric_points(session, claim.job_id, names=["loss"])
            names = list_metric_names(session, claim.job_id)
            files = list_artifacts(session, claim.job_id, since_scratch=True)
            return names, [(p.step, p.value) for p in points], len(files)

    for from_scratch, left in ((False, (["loss", "rate"], [(1, 1.0), (2, 1.0)], 1)), (True, ([], [], 0))):
        with transaction(engine) as session:
            jobs.retry_job(session, job_id=claim.job_id, from_scratch=from_scratch, now=now)
        assert shown() == left
        with transaction(engine) as session:
            jobs.request_cancel(session, job_id=claim.job_id, now=now)
    with transaction(engine) as session:
        jobs.retry_job(session, job_id=claim.job_id, from_scratch=False, now=now)
        again = jobs.claim_job(session, job_id=claim.job_id, worker="w", now=now, lease_seconds=60)
        assert again is not None
        record_events(session, **lease(again, now), events=[metrics(1, loss=0.5)], position=1)
    assert shown() == (["loss"], [(1, 0.5)], 0)


def test_a_step_that_is_done_again_counts_as_it_came_out_the_last_time(
    engine: Engine, running: MakeClaim, now: datetime
) -> None:
    """A training whose loss diverges goes back and does steps of the same attempt again."""
    claim = running()
    with transaction(engine) as session:
        diverging = [metrics(1, loss=1.0), metrics(2, loss=80.0), metrics(3, loss=None)]
        record_events(session, **lease(claim, now), events=diverging, position=1)
        record_events(session, **lease(claim, now), events=[metrics(2, loss=0.9)], position=2)
    with transaction(engine) as session:
        points = list_metric_points(session, claim.job_id)
    assert [(p.step, p.value) for p in points] == [(1, 1.0), (2, 0.9)]


def new_artifact(path: str, kind: ArtifactKind, step: int | None) -> NewArtifact:
    return NewArtifact(path=path, kind=kind, step=step, key=f"key/{path}", size=1, sha256="0" * 64)


def test_artifacts_offered_twice_are_recorded_and_told_once(
    engine: Engine, running: MakeClaim, now: datetime
) -> None:
    claim = running()
    files = [
        new_artifact("student.zip", "student_archive", None),
        new_artifact("student/a", "student_file", None),
    ]
    for _ in range(2):
        with transaction(engine) as session:
            event = NewEvent("artifact", {"path": "student"})
            add_artifacts(session, **lease(claim, now), artifacts=files, event=event)
    with transaction(engine) as session:
        assert [a.path for a in list_artifacts(session, claim.job_id)] == ["student.zip", "student/a"]
        assert len(list_artifacts(session, claim.job_id, kinds=["student_file"])) == 1
        assert get_student_archive(session, claim.job_id).key == "key/student.zip"
        assert [e.type for e in list_events(session, claim.job_id).items] == ["status", "status", "artifact"]


def test_there_are_no_weights_before_the_student_is_stored(engine: Engine, running: MakeClaim) -> None:
    with pytest.raises(NotFoundError), transaction(engine) as session:
        get_student_archive(session, running().job_id)


def test_the_checkpoint_to_resume_from_is_the_latest_attempts_newest(
    engine: Engine, running: MakeClaim, now: datetime
) -> None:
    claim = running()
    with transaction(engine) as session:
        for step in (1, 2):
            files = [new_artifact(f"checkpoints/{step}/{name}", "checkpoint_file", step) for name in "ab"]
            add_artifacts(session, **lease(claim, now), artifacts=files, event=None)
    with transaction(engine) as session:
        found = list_checkpoints(session, claim.job_id)
        assert [(c.attempt, c.step, len(c.files)) for c in found] == [(1, 2, 2), (1, 1, 2)]
        keys = sorted(file.key for file in found[0].files)
        forget_checkpoints(session, **lease(claim, now), steps_by_attempt=[(1, 2)])
        assert [c.step for c in list_checkpoints(session, claim.job_id)] == [1]
        assert take_due(session, now=now) == keys
