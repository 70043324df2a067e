"""Workers that are stopped in their tracks, and messages that come more often than once."""

import os
import re
import signal
import subprocess
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from store.queue import count_hints, send_job_hint
from tests.faults.states import assert_one_right_result, everything_of, student_steps

Eventually = Callable[..., Any]
StartWorker = Callable[..., Any]
PREVIOUS_RELEASE = "699f22c"


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
        workplace.take_back(job_id, eventually)
        start_worker(DATA_DIR=str(tmp_path / "another-host"))
        eventually(lambda: workplace.job(job_id).status == "succeeded")
        before = everything_of(workplace, job_id)
    finally:
        first.send_signal(signal.SIGCONT)
    log = tmp_path / "worker-0.log"
    eventually(lambda: "the lease was lost" in log.read_text())
    eventually(lambda: "lease_lost" in log.read_text())
    assert everything_of(workplace, job_id) == before
    assert_one_right_result(workplace, job_id)
    assert [process == trainer for _, process in student_steps(workplace, job_id)] == [True] * 4 + [False] * 2
    job = workplace.job(job_id)
    assert (job.attempt, job.attempts_used) == (2, 0)


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
    eventually(lambda: workplace.trainer_pid(job_id))
    send_on(job_id, 3)
    send_on(job_id, 5)
    eventually(lambda: workplace.job(job_id).status == "succeeded")
    eventually(lambda: count_hints(workplace.settings, "cpu") == 0)
    assert_one_right_result(workplace, job_id)
    assert workplace.job(job_id).attempt == 1


@pytest.mark.parametrize("offset_hours", [-1, 1])
def test_a_worker_whose_clock_is_an_hour_off_works_as_any_other(
    workplace: Any,
    start_worker: StartWorker,
    at_step: Callable[[str, int], int],
    send_on: Callable[[str, int], None],
    eventually: Eventually,
    tmp_path: Path,
    offset_hours: int,
) -> None:
    began = datetime.now(UTC)
    start_worker(CLOCK_OFFSET_HOURS=str(offset_hours))
    job_id = workplace.submit_job()
    send_job_hint(workplace.settings, job_id, "cpu")
    at_step(job_id, 4)
    lease = workplace.job(job_id).lease_expires_at
    assert timedelta(0) < lease - datetime.now(UTC) <= timedelta(seconds=workplace.settings.lease_seconds)
    assert workplace.reconcile(timedelta(0)).taken_back == []
    send_on(job_id, 5)
    eventually(lambda: workplace.job(job_id).status == "succeeded")
    assert_one_right_result(workplace, job_id)
    job, events = workplace.job(job_id), workplace.events(job_id)
    assert job.attempt == 1
    times = [event.at for event in events]
    assert times == sorted(times)
    assert began < times[0] == job.created_at < job.started_at < times[-1] == job.finished_at
    assert job.finished_at < datetime.now(UTC)
    logged = re.findall(r'"at": "([^"]+)"', (tmp_path / "worker-0.log").read_text())
    by_its_clock = datetime.fromisoformat(logged[-1]).astimezone(UTC)
    off = (by_its_clock - times[-1]).total_seconds() / 3600
    assert off == pytest.approx(offset_hours, abs=0.1), "the worker's clock was not off at all"


@pytest.fixture(scope="module")
def previous_release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The code of the release before, as the history of the repository has it."""
    folder = tmp_path_factory.mktemp("previous")
    archive = subprocess.run(
        ["git", "archive", PREVIOUS_RELEASE, "core", "store", "worker", "tests/worker"],
        cwd=Path(__file__).parents[2],
        capture_output=True,
    )
    if archive.returncode:
        pytest.skip("the repository was cloned without its history")
    subprocess.run(["tar", "--extract", "--directory", str(folder)], input=archive.stdout, check=True)
    return folder


@pytest.mark.parametrize("first_is_old", [True, False], ids=["old, then new", "new, then old"])
def test_workers_of_two_releases_take_over_from_each_other(
    workplace: Any,
    start_worker: StartWorker,
    at_step: Callable[[str, int], int],
    eventually: Eventually,
    previous_release: Path,
    first_is_old: bool,
) -> None:
    """On the newest schema, as while a new release is rolled out."""
    old = {"PYTHONPATH": f"{previous_release / 'tests' / 'worker'}:{previous_release}"}
    first = start_worker(**(old if first_is_old else {}))
    job_id = workplace.submit_job()
    send_job_hint(workplace.settings, job_id, "cpu")
    killed = at_step(job_id, 4)
    start_worker(**({} if first_is_old else old))
    first.kill()
    eventually(lambda: workplace.is_gone(killed))
    workplace.take_back(job_id, eventually)
    eventually(lambda: workplace.job(job_id).status == "succeeded")
    assert_one_right_result(workplace, job_id)
    assert [process == killed for _, process in student_steps(workplace, job_id)] == [True] * 4 + [False] * 2
    assert workplace.job(job_id).attempt == 2
