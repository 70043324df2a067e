"""Checkpoints that were damaged in the object store: the one before is used, and nobody is told a lie."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from store.artifacts import list_checkpoints
from store.database import transaction
from tests.faults.states import assert_one_right_result, student_steps

Damage = Callable[[bytes], bytes]


def truncated(content: bytes) -> bytes:
    return content[: len(content) // 2]


def emptied(content: bytes) -> bytes:
    return b""


def bit_flipped(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


@pytest.mark.parametrize("damage", [truncated, emptied, bit_flipped])
@pytest.mark.parametrize("both", [False, True])
def test_a_damaged_checkpoint_is_passed_over(
    workplace: Any, at_step: Callable[[str, int], int], tmp_path: Path, damage: Damage, both: bool
) -> None:
    job_id = workplace.submit_job()
    running = workplace.begin("pauses")
    killed = at_step(job_id, 4)
    os.kill(killed, signal.SIGKILL)
    assert running.result() == "queued"
    with transaction(workplace.engine) as session:
        checkpoints = list_checkpoints(session, job_id)
    assert [checkpoint.step for checkpoint in checkpoints] == [4, 2]
    for checkpoint in checkpoints[: 1 + both]:
        file = checkpoint.files[-1]
        path = tmp_path / "file"
        workplace.objects.download_file(file.key, path, sha256=file.sha256)
        path.write_bytes(damage(path.read_bytes()))
        workplace.objects.upload_file(path, file.key)
    assert workplace.run("finish") == "succeeded"
    assert_one_right_result(workplace, job_id)
    kept = 0 if both else 2
    made = [process == killed for _, process in student_steps(workplace, job_id)]
    assert made == [True] * kept + [False] * (6 - kept)
