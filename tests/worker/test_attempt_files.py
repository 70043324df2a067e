"""What becomes of checkpoints whose upload takes longer than the trainer keeps them, and of a growing log."""

import hashlib
import logging
import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from store.artifacts import list_artifacts, list_checkpoints
from store.database import server_now, transaction
from store.errors import UnavailableError
from store.jobs import claim_job
from store.sweeper import remove_unclaimed_objects
from store.tenants import list_tenants
from worker import attempt_files
from worker.attempt_files import AttemptFiles
from worker.job_log import JobLogger
from worker.trainer_events import CheckpointEvent

MakeCheckpoint = Callable[[int], CheckpointEvent]


@pytest.fixture
def job_id(workplace: Any) -> str:
    return str(workplace.submit_job())


@pytest.fixture
def files(workplace: Any, job_id: str, tmp_path: Path) -> AttemptFiles:
    with transaction(workplace.engine) as session:
        claim = claim_job(session, job_id=job_id, worker="w", now=server_now(session), lease_seconds=60)
    assert claim is not None
    return AttemptFiles(
        engine=workplace.engine,
        objects=workplace.objects,
        claim=claim,
        work_dir=tmp_path,
        clock=server_now,
        logger=JobLogger(logging.getLogger("test"), job_id=job_id, attempt=1),
    )


@pytest.fixture
def written(tmp_path: Path) -> MakeCheckpoint:
    """Writes the checkpoint of a step as the trainer does, and removes all others, as it would in time."""

    def write(step: int) -> CheckpointEvent:
        shutil.rmtree(tmp_path / "checkpoints", ignore_errors=True)
        event = CheckpointEvent(type="checkpoint", step=step, path=f"checkpoints/step-{step:08d}")
        (tmp_path / event.path).mkdir(parents=True)
        for name in ("manifest.json", "model.safetensors"):
            (tmp_path / event.path / name).write_text(f"{name} of step {step}")
        return event

    return write


def steps_stored(workplace: Any, job_id: str) -> list[int]:
    with transaction(workplace.engine) as session:
        checkpoints = list_checkpoints(session, job_id)
    for checkpoint in checkpoints:
        for file in checkpoint.files:
            name = Path(file.path).name
            assert workplace.objects.read_object(file.key).decode() == f"{name} of step {checkpoint.step}"
    return [checkpoint.step for checkpoint in checkpoints]


def test_while_one_is_sent_the_newest_is_held_and_both_are_stored_although_the_trainer_removed_them(
    workplace: Any,
    job_id: str,
    files: AttemptFiles,
    written: MakeCheckpoint,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    held, upload = tmp_path / "held" / "checkpoints", workplace.objects.upload_file
    later: list[CheckpointEvent] = []

    def upload_slowly(path: Path, key: str) -> Any:
        while len(later) < 2:
            later.append(written(200 + 100 * len(later)))
            files.hold_checkpoint(later[-1])
        assert sorted(folder.name for folder in held.iterdir()) == ["step-00000100", "step-00000300"]
        return upload(path, key)

    files.hold_checkpoint(first := written(100))
    with monkeypatch.context() as patched:
        patched.setattr(workplace.objects, "upload_file", upload_slowly)
        files.store_checkpoint(first)
    files.store_checkpoint(later[-1])  # it took the place of the one before
    assert steps_stored(workplace, job_id) == [300, 100]
    assert list(held.iterdir()) == []


def test_a_checkpoint_is_held_until_all_is_done_that_may_have_to_be_repeated(
    workplace: Any,
    job_id: str,
    files: AttemptFiles,
    written: MakeCheckpoint,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object) -> None:
        raise UnavailableError("Postgres goes away once the checkpoint is recorded")

    files.hold_checkpoint(first := written(100))
    written(200)
    with monkeypatch.context() as patched:
        patched.setattr(attempt_files, "list_checkpoints", fail)
        with pytest.raises(UnavailableError):
            files.store_checkpoint(first)
    files.store_checkpoint(first)
    assert steps_stored(workplace, job_id) == [100]


def logs_stored(workplace: Any, job_id: str) -> list[bytes]:
    with transaction(workplace.engine) as session:
        logs = list_artifacts(session, job_id, kinds=["log"])
        (tenant,) = list_tenants(session)
    contents = [workplace.objects.read_object(log.key) for log in logs]
    assert [log.path for log in logs] == ["trainer.log"] * len(logs)
    assert [(log.size, log.sha256) for log in logs] == [
        (len(content), hashlib.sha256(content).hexdigest()) for content in contents
    ]
    assert tenant.bytes_stored == sum(map(len, contents))
    return contents


def test_the_log_is_stored_while_it_grows_its_end_first_and_in_the_end_whole(
    workplace: Any,
    job_id: str,
    files: AttemptFiles,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(attempt_files, "LONGEST_LOG_END", 8)
    log, keys = tmp_path / "trainer.log", partial(workplace.objects.list_keys, f"jobs/{job_id}/")
    log.touch()
    files.store_log_end()
    assert keys() == []
    for text, end in ((b"loading\n", b"loading\n"), (b"step 1\n", b"\nstep 1\n")):
        with log.open("ab") as file:
            file.write(text)
        for _ in range(2):
            files.store_log_end()
        assert logs_stored(workplace, job_id) == [end]
    assert len(keys()) == 2
    for _ in range(2):
        files.store_log()
    assert logs_stored(workplace, job_id) == [b"loading\nstep 1\n"]
    with transaction(workplace.engine) as session:
        now = server_now(session)
    remove_unclaimed_objects(workplace.engine, workplace.objects, now)
    assert len(keys()) == 1


def test_a_log_that_was_sent_and_could_not_be_recorded_is_not_sent_again(
    workplace: Any,
    job_id: str,
    files: AttemptFiles,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise UnavailableError("Postgres is away")

    log = tmp_path / "trainer.log"
    log.write_bytes(b"loading\n")
    with monkeypatch.context() as patched:
        patched.setattr(attempt_files, "replace_artifact", fail)
        with pytest.raises(UnavailableError):
            files.store_log_end()
    log.write_bytes(b"loading\nstep 1\n")
    files.store_log_end()
    assert logs_stored(workplace, job_id) == [b"loading\n"]
    files.store_log_end()
    assert logs_stored(workplace, job_id) == [b"loading\nstep 1\n"]


def test_where_links_cannot_be_made_a_checkpoint_is_sent_while_it_is_there(
    workplace: Any,
    job_id: str,
    files: AttemptFiles,
    written: MakeCheckpoint,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError("this file system has no hard links")

    monkeypatch.setattr(os, "link", refuse)
    first = written(100)
    files.hold_checkpoint(first)
    files.store_checkpoint(first)
    files.hold_checkpoint(second := written(200))
    written(300)
    with pytest.raises(FileNotFoundError, match="removed before"):
        files.store_checkpoint(second)
    assert steps_stored(workplace, job_id) == [100]
