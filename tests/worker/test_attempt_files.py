"""What becomes of checkpoints whose upload takes longer than the trainer keeps them."""

import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from store.artifacts import list_checkpoints
from store.database import server_now, transaction
from store.errors import UnavailableError
from store.jobs import claim_job
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
