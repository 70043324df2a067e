"""Workers that are stopped in their tracks, and messages that come more often than once."""

import os
import signal
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

from store.queue import count_hints, send_job_hint
from tests.faults.states import assert_one_right_result, everything_of, student_steps

Eventually = Callable[..., Any]
StartWorker = Callable[..., Any]


def test_a_worker_stopped_past_its_lease_changes_nothing_when_it_wakes(
    workplace: Any,
    start_worker: StartWorker,
    at_step: Callable[[str, int], int],
    eventually: Eventually,
    tmp_path: Path,
) -> None:
    first = start_worker()
    job_id = workplace.submit_job()
    send_job_hint(workplace.settings, job_id, "cpu")
    trainer = at_step(job_id, 4)
    first.send_signal(signal.SIGSTOP)
    try:
        # Unsupervised, its trainer goes on to the very end and leaves a student of its own.
        said = workplace.settings.work_dir / job_id / "1" / "events.jsonl"
        eventually(lambda: "pauses at step 5" in said.read_text())
        os.kill(trainer, signal.SIGUSR1)
        eventually(lambda: workplace.is_gone(trainer))
        report = workplace.reconcile(timedelta(seconds=workplace.settings.lease_seconds + 1))
        assert report.taken_back == [job_id]
        start_worker(DATA_DIR=str(tmp_path / "another-host"))
        eventually(lambda: workplace.job(job_id).status == "succeeded", timeout_seconds=60)
        before = everything_of(workplace, job_id)
    finally:
        first.send_signal(signal.SIGCONT)
    log = tmp_path / "worker-0.log"
    eventually(lambda: "the lease was lost" in log.read_text(), timeout_seconds=30)
    eventually(lambda: "lease_lost" in log.read_text())
    assert everything_of(workplace, job_id) == before
    assert_one_right_result(workplace, job_id)
    assert [process == trainer for _, process in student_steps(workplace, job_id)] == [True] * 4 + [False] * 2
    job = workplace.job(job_id)
    assert (job.attempt, job.attempts_used) == (2, 1)


def test_the_same_message_five_times_to_four_workers_makes_one_attempt(
    workplace: Any, start_worker: StartWorker, send_on: Callable[[str, int], None], eventually: Eventually
) -> None:
    job_id = workplace.submit_job()
    together = threading.Barrier(5)

    def send() -> None:
        together.wait()
        send_job_hint(workplace.settings, job_id, "cpu")

    senders = [threading.Thread(target=send) for _ in range(5)]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join()
    assert count_hints(workplace.settings, "cpu") == 5
    for _ in range(4):
        start_worker()
    eventually(lambda: workplace.trainer_pid(job_id), timeout_seconds=90)
    send_on(job_id, 3)
    send_on(job_id, 5)
    eventually(lambda: workplace.job(job_id).status == "succeeded", timeout_seconds=60)
    eventually(lambda: count_hints(workplace.settings, "cpu") == 0)
    assert_one_right_result(workplace, job_id)
    assert workplace.job(job_id).attempt == 1
