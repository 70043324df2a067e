"""A work folder on a disk that is full: the real errno, on a file system of two megabytes."""

import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from core.exit_status import DISK_FULL
from store.database import server_now, transaction
from store.jobs import create_job
from store.queue import send_job_hint
from tests.core.conftest import small_spec, write_tiny_teacher
from tests.faults.servers import REPOSITORY

Eventually = Callable[..., Any]
PAGE_BYTES = resource.getpagesize()


@pytest.fixture(scope="module")
def core_teachers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher small enough to be distilled in a test."""
    folder = tmp_path_factory.mktemp("teachers")
    write_tiny_teacher(folder / "emoji-64" / "weights")
    return folder / "emoji-64"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of two megabytes; who may not mount one cannot run these tests."""
    folder = tmp_path / "small-disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a file system takes root's rights")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder: Path) -> None:
    """Leave not a page free."""
    with (folder / "filler").open("wb", buffering=0) as filler:
        block = bytes(1 << 16)
        while len(block):
            try:
                filler.write(block)
            except OSError:
                block = block[: len(block) // 2]


def test_a_job_whose_checkpoint_does_not_fit_says_so(
    workplace: Any,
    service_environment: dict[str, str],
    core_teachers: Path,
    small_disk: Path,
    tmp_path: Path,
    eventually: Eventually,
) -> None:
    """The real worker and the real trainer, whose checkpoint of some megabytes meets the end of the disk."""
    with transaction(workplace.engine) as session:
        job_id = create_job(session, spec=small_spec(), queue="cpu", now=server_now(session)).id
    send_job_hint(workplace.settings, job_id, "cpu")
    environment = {
        **{"PATH": os.environ["PATH"], "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"},
        **service_environment,
        **{"DATA_DIR": str(small_disk), "TEACHERS_DIRS": str(core_teachers)},
        **{"MIN_FREE_BYTES": "0", "MAX_ATTEMPTS": "1"},
    }
    command = [sys.executable, "-m", "celery", "-A", "worker.app", "worker", "--loglevel=INFO"]
    with (tmp_path / "worker.log").open("wb") as log:
        worker = subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=tmp_path)
    try:
        eventually(lambda: workplace.job(job_id).status == "failed")
    finally:
        worker.kill()
        worker.wait()
    job = workplace.job(job_id)
    assert (job.reason, job.attempt) == ("storage_full", 1)
    assert "disk is full" in job.message
    assert job.hint
    events = workplace.events(job_id)
    assert [event.sequence for event in events] == list(range(1, job.last_sequence + 1))


def test_a_trainer_that_cannot_even_say_so_says_it_by_its_exit_code(
    core_teachers: Path, small_disk: Path, tmp_path: Path
) -> None:
    """An interrupted job, taken up when the disk is full.

    Of what fills the disk nothing is the trainer's own, or removing it would leave room to say so.
    """
    spec = tmp_path / "spec.json"
    spec.write_text(small_spec().model_dump_json())
    said_before = b'{"type": "phase", "phase": "captions"}'.ljust(PAGE_BYTES - 1) + b"\n"
    said = small_disk / "events.jsonl"
    said.write_bytes(said_before)  # whole pages, as the rest of one would be room
    fill(small_disk)
    command = [sys.executable, "-m", "core.run", "--spec", str(spec), "--workdir", str(small_disk)]
    command += ["--teachers", str(core_teachers), "--cache", str(tmp_path / "cache")]
    ended = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert ended.returncode == DISK_FULL, ended.stderr
    assert "No space left on device" in ended.stderr
    assert said.read_bytes() == said_before


def test_a_worker_whose_disk_is_full_takes_no_job(workplace: Any, small_disk: Path) -> None:
    job_ids = [workplace.submit_job() for _ in range(2)]
    fill(small_disk)
    on_small_disk = {"data_dir": small_disk, "min_free_bytes": 1 << 20}
    assert workplace.run("finish", **on_small_disk) == "not_claimed"
    assert {(workplace.job(job_id).status, workplace.job(job_id).attempt) for job_id in job_ids} == {
        ("queued", 0)
    }
    (small_disk / "filler").unlink()
    assert workplace.run("finish", **on_small_disk) == "succeeded"


def test_a_cache_gives_way_to_the_next_job(workplace: Any, small_disk: Path) -> None:
    entry = small_disk / "cache" / "latents" / "old"
    entry.mkdir(parents=True)
    fill(entry)
    workplace.submit_job()
    assert workplace.run("finish", data_dir=small_disk, min_free_bytes=1 << 20) == "succeeded"


def test_a_worker_without_room_for_an_attempt_gives_the_job_back(workplace: Any, small_disk: Path) -> None:
    """As where the disk fills up after the worker has looked, or the job's inputs are larger than it."""
    job_id = workplace.submit_job()
    fill(small_disk)
    options = {"data_dir": small_disk, "min_free_bytes": 0, "max_attempts": 2}
    assert [workplace.run("finish", **options) for _ in range(3)] == ["queued", "failed", "not_claimed"]
    assert workplace.job(job_id).reason == "storage_full"


def test_a_worker_without_room_for_the_archive_gives_the_job_back(workplace: Any, small_disk: Path) -> None:
    """The student fits; a second copy of it does not."""
    job_id = workplace.submit_job()
    assert workplace.run("big-student", data_dir=small_disk, min_free_bytes=0) == "queued"
    job = workplace.job(job_id)
    assert (job.attempts_used, job.transitions[-1].reason) == (1, "storage_full")
    assert workplace.run("big-student") == "succeeded", "another disk has the room"
