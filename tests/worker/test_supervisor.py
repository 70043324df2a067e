"""The supervisor with real servers and a real child process, in good days and bad."""

import io
import json
import os
import signal
import threading
import zipfile
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from store.artifacts import attempt_prefix, get_student_archive, list_artifacts, list_checkpoints
from store.database import server_now, transaction
from store.jobs import claim_job, request_cancel, request_pause, requeue_expired, resume_job, retry_job
from store.metrics import list_metric_points
from store.step_wishes import request_at_step
from store.sweeper import remove_unclaimed_objects
from worker import monitoring

AtStep = Callable[[str, int], int]
Eventually = Callable[..., Any]


def cancel(workplace: Any, job_id: str) -> None:
    with transaction(workplace.engine) as session:
        request_cancel(session, job_id=job_id, now=server_now(session))


def student_steps(workplace: Any, job_id: str) -> list[list[int]]:
    """The steps that the student of a job has learnt, each with the process that made it."""
    with transaction(workplace.engine) as session:
        key = get_student_archive(session, job_id).key
    with urlopen(workplace.objects.presigned_get(key)) as answer:
        archive = zipfile.ZipFile(io.BytesIO(answer.read()))
    assert archive.testzip() is None
    assert archive.namelist() == ["unet/steps.json", "manifest.json"]
    steps: list[list[int]] = json.loads(archive.read("unet/steps.json"))
    return steps


def assert_history_is_whole(workplace: Any, job_id: str) -> None:
    job, events = workplace.job(job_id), workplace.events(job_id)
    assert [event.sequence for event in events] == list(range(1, job.last_sequence + 1))
    told = [(event.sequence, event.data["status"]) for event in events if event.type == "status"]
    assert told == [(transition.sequence, transition.status) for transition in job.transitions]


def test_a_job_that_goes_well_leaves_its_student(workplace: Any) -> None:
    job_id = workplace.submit_job()
    assert workplace.run("finish") == "succeeded"
    job = workplace.job(job_id)
    assert (job.status, job.progress, job.result) == ("succeeded", 1.0, {"steps": 6})
    assert_history_is_whole(workplace, job_id)
    events = workplace.events(job_id)
    assert [e.data["step"] for e in events if e.type == "metrics"] == [1, 2, 3, 4, 5, 6]
    assert [e.data for e in events if e.type == "sample"] == [
        {"step": 3, "path": "samples/step-00000003.png", "prompts": ["a cat"]}
    ]
    assert [step for step, _ in student_steps(workplace, job_id)] == [1, 2, 3, 4, 5, 6]
    with transaction(workplace.engine) as session:
        losses = [point.value for point in list_metric_points(session, job_id)]
        kinds = {artifact.kind for artifact in list_artifacts(session, job_id)}
        artifacts = list_artifacts(session, job_id)
    assert losses == pytest.approx([1 / step for step in range(1, 7)])
    assert kinds == {"student_archive", "student_file", "checkpoint_file", "sample", "log", "result"}
    recorded = sorted(artifact.key for artifact in artifacts)
    assert recorded == workplace.objects.list_keys(attempt_prefix(job_id, 1))
    assert list(workplace.settings.work_dir.iterdir()) == []


def test_only_the_newest_two_checkpoints_are_kept(workplace: Any, at_step: AtStep) -> None:
    job_id = workplace.submit_job()
    running = workplace.begin("pauses")
    at_step(job_id, 4)
    workplace.stop.set()
    assert running.result() == "queued"
    with transaction(workplace.engine) as session:
        checkpoints = list_checkpoints(session, job_id)
    assert [checkpoint.step for checkpoint in checkpoints] == [5, 4]
    with transaction(workplace.engine) as session:
        now = server_now(session)
    remove_unclaimed_objects(workplace.engine, workplace.objects, now)
    stored = [key for key in workplace.objects.list_keys(f"jobs/{job_id}/") if "/checkpoints/" in key]
    assert stored == sorted(file.key for checkpoint in checkpoints for file in checkpoint.files)


def test_a_failure_of_the_trainer_is_told_to_the_user(workplace: Any) -> None:
    job_id = workplace.submit_job()
    assert workplace.run("fail") == "failed"
    job = workplace.job(job_id)
    assert (job.status, job.reason, job.hint) == ("failed", "diverged", "lower the rate")
    assert job.message == "the loss exploded\ufffd"
    with transaction(workplace.engine) as session:
        losses, log = list_artifacts(session, job_id, kinds=["log"])
    assert (losses.path, log.path) == ("divergence.json", "trainer.log")
    with urlopen(workplace.objects.presigned_get(log.key)) as answer:
        assert answer.read() == b"hello from the trainer\n"


@pytest.mark.parametrize(
    ("behaviour", "message"),
    [
        ("crash", "exit code 3"),
        ("no-student", "without leaving a student"),
        ("unforeseen", "RuntimeError: unspecified launch failure"),
    ],
)
def test_a_trainer_that_keeps_crashing_uses_the_attempts_up(
    workplace: Any, behaviour: str, message: str
) -> None:
    job_id = workplace.submit_job()
    outcomes = [workplace.run(behaviour, max_attempts=2) for _ in range(3)]
    assert outcomes == ["queued", "failed", "not_claimed"]
    job = workplace.job(job_id)
    assert (job.reason, job.attempts_used) == ("trainer_crashed", 2)
    assert message in (job.message or "")
    assert_history_is_whole(workplace, job_id)


def test_a_worker_whose_folder_cannot_be_written_to_takes_no_job(workplace: Any, tmp_path: Path) -> None:
    (tmp_path / "no-folder").touch()
    job_id = workplace.submit_job()
    declined = monitoring.REGISTRY.get_sample_value("condenser_worker_declined_total")
    assert workplace.run("finish", data_dir=tmp_path / "no-folder") == "not_claimed"
    assert workplace.job(job_id).status == "queued"
    assert monitoring.REGISTRY.get_sample_value("condenser_worker_declined_total") == (declined or 0) + 1


def test_a_worker_whose_machine_lacks_something_takes_no_job_until_it_has_it(
    workplace: Any, caplog: pytest.LogCaptureFixture
) -> None:
    job_id = workplace.submit_job()
    lacks = [None, "the accelerator is gone"]
    supervisor = workplace.supervisor("finish", find_lack=lacks.pop)
    assert supervisor.run(workplace.stop) == "not_claimed"
    assert "no job is taken: the accelerator is gone" in caplog.text
    assert workplace.job(job_id).status == "queued"
    assert supervisor.run(workplace.stop) == "succeeded"


def test_a_job_whose_own_folder_cannot_be_written_to_is_given_back(workplace: Any) -> None:
    job_id = workplace.submit_job()
    workplace.settings.work_dir.mkdir(parents=True)
    (workplace.settings.work_dir / job_id).touch()
    assert workplace.run("finish") == "queued"
    job = workplace.job(job_id)
    assert (job.attempts_used, job.transitions[-1].reason) == (1, "trainer_crashed")
    (workplace.settings.work_dir / job_id).unlink()
    assert workplace.run("finish") == "succeeded"


def test_a_worker_pauses_longer_and_longer_while_its_attempts_crash_at_once(workplace: Any) -> None:
    for _ in range(4):
        workplace.submit_job()
    pauses: list[float] = []
    supervisor = workplace.supervisor("crash", max_attempts=1)
    stop = threading.Event()
    stop.wait = pauses.append  # type: ignore[method-assign,assignment]
    assert [supervisor.run(stop) for _ in range(4)] == ["failed"] * 4
    assert pauses == [0.02, 0.04, 0.08]


def test_a_wish_that_cannot_be_written_down_ends_no_training_and_is_tried_again(
    workplace: Any, at_step: AtStep, send_on: Callable[[str, int], None], eventually: Eventually
) -> None:
    job_id = workplace.submit_job()
    running = workplace.begin("pauses")
    at_step(job_id, 2)
    eventually(lambda: workplace.job(job_id).phase == "training")
    in_the_way = workplace.settings.work_dir / job_id / "1" / "requests"
    in_the_way.touch()
    with transaction(workplace.engine) as session:
        request_at_step(session, job_id=job_id, wish="sample", now=server_now(session))
    before = workplace.job(job_id).lease_expires_at
    eventually(lambda: workplace.job(job_id).lease_expires_at > before)
    assert workplace.job(job_id).sample_requested
    in_the_way.unlink()
    eventually(lambda: not workplace.job(job_id).sample_requested)
    send_on(job_id, 3)
    send_on(job_id, 5)
    assert running.result() == "succeeded"
    drawn = [event.data["prompts"] for event in workplace.events(job_id) if event.type == "sample"]
    assert drawn == [["a cat"], ["a dog"]]


def test_a_killed_trainer_goes_on_from_its_checkpoint(workplace: Any, at_step: AtStep) -> None:
    job_id = workplace.submit_job()
    running = workplace.begin("pauses")
    killed = at_step(job_id, 4)
    os.kill(killed, signal.SIGKILL)
    assert running.result() == "queued"
    job = workplace.job(job_id)
    assert (job.status, job.attempts_used, job.transitions[-1].reason) == ("queued", 1, "trainer_crashed")
    assert workplace.run("pauses") == "succeeded"
    steps = student_steps(workplace, job_id)
    assert [step for step, _ in steps] == [1, 2, 3, 4, 5, 6]
    assert [process == killed for _, process in steps] == [True] * 4 + [False] * 2
    assert workplace.job(job_id).attempt == 2
    assert_history_is_whole(workplace, job_id)


def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(
    workplace: Any, at_step: AtStep, tmp_path: Path
) -> None:
    job_id = workplace.submit_job()
    running = workplace.begin("pauses")
    killed = at_step(job_id, 4)
    os.kill(killed, signal.SIGKILL)
    assert running.result() == "queued"
    with transaction(workplace.engine) as session:
        newest = list_checkpoints(session, job_id)[0]
    assert newest.step == 4
    damaged = tmp_path / "damaged"
    damaged.write_text("[]")
    workplace.objects.upload_file(damaged, newest.files[-1].key)
    assert workplace.run("pauses") == "succeeded"
    steps = student_steps(workplace, job_id)
    assert [process == killed for _, process in steps] == [True] * 2 + [False] * 4


def test_a_worker_that_has_to_go_gives_the_job_back(workplace: Any, at_step: AtStep) -> None:
    job_id = workplace.submit_job()
    running = workplace.begin("pauses")
    trainer = at_step(job_id, 4)
    workplace.stop.set()
    assert running.result() == "queued"
    assert workplace.is_gone(trainer)
    job = workplace.job(job_id)
    assert (job.status, job.attempts_used, job.transitions[-1].reason) == ("queued", 0, "worker_stopped")
    assert workplace.run("finish") == "not_claimed"
    workplace.stop.clear()
    assert workplace.run("finish") == "succeeded"
    steps = student_steps(workplace, job_id)
    assert [process == trainer for _, process in steps] == [True] * 5 + [False]


def test_a_running_job_is_cancelled_with_its_checkpoint_kept(workplace: Any, at_step: AtStep) -> None:
    job_id = workplace.submit_job()
    running = workplace.begin("pauses")
    trainer = at_step(job_id, 4)
    cancel(workplace, job_id)
    assert running.result() == "cancelled"
    assert workplace.is_gone(trainer)
    job = workplace.job(job_id)
    assert (job.status, job.reason) == ("cancelled", "cancelled_by_user")
    with transaction(workplace.engine) as session:
        assert list_checkpoints(session, job_id)[0].step == 5
    assert_history_is_whole(workplace, job_id)


def test_a_paused_job_frees_its_worker_and_goes_on_from_its_checkpoint(
    workplace: Any, at_step: AtStep
) -> None:
    job_id = workplace.submit_job()
    running = workplace.begin("pauses")
    trainer = at_step(job_id, 4)
    with transaction(workplace.engine) as session:
        request_pause(session, job_id=job_id, now=server_now(session))
    assert running.result() == "paused"
    assert workplace.is_gone(trainer)
    job = workplace.job(job_id)
    assert (job.status, job.attempts_used, job.transitions[-1].reason) == ("paused", 0, "paused_by_user")
    assert workplace.run("finish") == "not_claimed"
    other = workplace.submit_job()
    assert workplace.run("finish") == "succeeded"
    assert workplace.job(other).status == "succeeded"
    with transaction(workplace.engine) as session:
        resume_job(session, job_id=job_id, now=server_now(session))
    assert workplace.run("finish") == "succeeded"
    steps = student_steps(workplace, job_id)
    assert [process == trainer for _, process in steps] == [True] * 5 + [False]
    assert_history_is_whole(workplace, job_id)


def test_a_training_is_asked_for_a_checkpoint_and_pictures_and_goes_on(
    workplace: Any, at_step: AtStep, send_on: Callable[[str, int], None], eventually: Eventually
) -> None:
    job_id = workplace.submit_job()
    running = workplace.begin("pauses")
    trainer = at_step(job_id, 2)
    eventually(lambda: workplace.job(job_id).phase == "training")
    for wish in ("checkpoint", "sample"):
        with transaction(workplace.engine) as session:
            request_at_step(session, job_id=job_id, wish=wish, now=server_now(session))
    eventually(lambda: not workplace.job(job_id).save_requested | workplace.job(job_id).sample_requested)
    send_on(job_id, 3)
    eventually(lambda: "pauses at step 5" in workplace.trainer_said(job_id))
    # It may not be stored: the next one of the trainer's own follows at once and takes its place.
    assert "checkpoints/step-00000003" in workplace.trainer_said(job_id)
    send_on(job_id, 5)
    assert running.result() == "succeeded"
    drawn = [event.data["prompts"] for event in workplace.events(job_id) if event.type == "sample"]
    assert drawn == [["a cat"], ["a dog"]]
    assert [process for _, process in student_steps(workplace, job_id)] == [trainer] * 6
    assert_history_is_whole(workplace, job_id)


def test_a_job_over_its_time_ends_with_a_checkpoint(workplace: Any, at_step: AtStep) -> None:
    job_id = workplace.submit_job(max_runtime_s=3_600)
    ahead = timedelta(0)
    running = workplace.begin("pauses", clock=lambda session: server_now(session) + ahead)
    trainer = at_step(job_id, 4)
    ahead = timedelta(hours=2)
    assert running.result(timeout=30) == "failed"
    assert workplace.is_gone(trainer)
    job = workplace.job(job_id)
    assert (job.reason, job.attempts_used) == ("max_runtime", 0)
    with transaction(workplace.engine) as session:
        assert list_checkpoints(session, job_id)[0].step == 5


@pytest.mark.parametrize("from_scratch", [False, True])
def test_a_retried_job_goes_on_from_its_checkpoint_or_begins_anew(
    workplace: Any, at_step: AtStep, from_scratch: bool
) -> None:
    job_id = workplace.submit_job()
    running = workplace.begin("pauses")
    trainer = at_step(job_id, 4)
    cancel(workplace, job_id)
    assert running.result() == "cancelled"
    with transaction(workplace.engine) as session:
        retry_job(session, job_id=job_id, from_scratch=from_scratch, now=server_now(session))
    assert workplace.run("finish") == "succeeded"
    steps = student_steps(workplace, job_id)
    assert [step for step, _ in steps] == [1, 2, 3, 4, 5, 6]
    assert [process == trainer for _, process in steps] == [not from_scratch] * 5 + [False]
    assert workplace.job(job_id).attempt == 2
    assert_history_is_whole(workplace, job_id)


@pytest.mark.parametrize(
    ("processes", "sentence"), [(1, "128 samples instead of 256"), (8, "16 samples instead of 32")]
)
def test_a_trainer_out_of_memory_is_given_a_smaller_micro_batch(
    workplace: Any, processes: int, sentence: str
) -> None:
    job_id = workplace.submit_job()
    outcomes = [workplace.run("small-memory", worker_processes=processes) for _ in range(2)]
    assert outcomes == ["queued", "succeeded"]
    job = workplace.job(job_id)
    assert (job.attempts_used, job.spec["training"]["micro_batch_size"]) == (0, None)
    [told] = [event for event in workplace.events(job_id) if event.type == "warning"]
    assert sentence in told.data["message"]
    assert_history_is_whole(workplace, job_id)


def test_a_trainer_that_will_not_stop_is_killed_after_the_grace(
    workplace: Any, eventually: Eventually
) -> None:
    job_id = workplace.submit_job()
    running = workplace.begin("stubborn", cancel_grace_seconds=0.3)
    trainer = eventually(lambda: workplace.trainer_pid(job_id))
    cancel(workplace, job_id)
    assert running.result(timeout=20) == "cancelled"
    assert workplace.is_gone(trainer)


def test_a_worker_that_lost_its_lease_writes_nothing_more(
    workplace: Any, at_step: AtStep, eventually: Eventually
) -> None:
    job_id = workplace.submit_job()
    running = workplace.begin("pauses")
    trainer = at_step(job_id, 4)
    # The reconciler, an hour later as far as it can tell, gives the job to another worker.
    with transaction(workplace.engine) as session:
        later = server_now(session) + timedelta(hours=1)
        # It passes over a job whose row the worker holds at that moment, for a beat or a record.
        assert eventually(lambda: requeue_expired(session, now=later, max_attempts=3)) == [job_id]
        claim = claim_job(session, job_id=job_id, worker="other", now=later, lease_seconds=60)
    assert claim is not None
    taken_over = workplace.job(job_id)
    assert running.result(timeout=20) == "lease_lost"
    assert workplace.is_gone(trainer)
    job = workplace.job(job_id)
    assert (job.status, job.worker, job.attempt) == ("running", "other", 2)
    assert (job.last_sequence, job.updated_at) == (taken_over.last_sequence, taken_over.updated_at)
    with transaction(workplace.engine) as session:
        assert {artifact.attempt for artifact in list_artifacts(session, job_id)} == {1}


def test_many_hints_at_once_make_one_attempt(workplace: Any) -> None:
    job_id = workplace.submit_job()
    hints = [workplace.begin("finish") for _ in range(4)]
    outcomes = sorted(hint.result() for hint in hints)
    assert outcomes == ["not_claimed"] * 3 + ["succeeded"]
    assert workplace.run("finish") == "not_claimed"
    assert workplace.job(job_id).attempt == 1


def test_a_job_cancelled_before_the_hint_arrives_is_not_begun(workplace: Any) -> None:
    job_id = workplace.submit_job()
    cancel(workplace, job_id)
    assert workplace.run("finish") == "not_claimed"


def test_the_lease_is_kept_while_an_upload_takes_long(
    workplace: Any, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrived, go_on = threading.Event(), threading.Event()
    upload = workplace.objects.upload_file

    def slow_upload(path: Path, key: str) -> Any:
        if key.endswith("student.zip"):
            arrived.set()
            assert go_on.wait(30)
        return upload(path, key)

    monkeypatch.setattr(workplace.objects, "upload_file", slow_upload)
    job_id = workplace.submit_job()
    running = workplace.begin("finish")
    assert arrived.wait(30)
    first = workplace.job(job_id).lease_expires_at
    eventually(lambda: workplace.job(job_id).lease_expires_at > first)
    assert workplace.job(job_id).status == "running"
    go_on.set()
    assert running.result() == "succeeded"


def test_a_cancel_during_the_last_upload_still_cancels(
    workplace: Any, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrived, go_on = threading.Event(), threading.Event()
    upload = workplace.objects.upload_file

    def slow_upload(path: Path, key: str) -> Any:
        if key.endswith("student.zip"):
            arrived.set()
            assert go_on.wait(30)
        return upload(path, key)

    monkeypatch.setattr(workplace.objects, "upload_file", slow_upload)
    job_id = workplace.submit_job()
    running = workplace.begin("finish")
    assert arrived.wait(30)
    cancel(workplace, job_id)
    eventually(lambda: workplace.job(job_id).status == "cancelled")
    go_on.set()
    assert running.result() == "cancelled"
    with transaction(workplace.engine) as session:
        assert list_artifacts(session, job_id, kinds=["student_archive", "student_file"]) == []
