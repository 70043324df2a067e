"""Which checkpoints are kept, and what one says of the captions and the teacher that it was made from."""

import errno
import io
import json
import os
import shutil
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from core.checkpoints import (
    Origin,
    check_origin,
    checkpoint_step,
    complete_checkpoints,
    newest_checkpoint,
    save_checkpoint,
)
from core.divergence import DivergenceGuard
from core.errors import BadCaptionsError, BadTeacherError
from core.events import EventWriter
from core.optimisation import build_optimiser
from core.pipeline import Job, run_job
from core.spec import DistillationSpec, TrainingSpec
from core.stopping import StopRequest

ORIGIN = Origin(captions="a" * 64, teacher="b" * 64)


def save(folder: Path, step: int, origin: Origin) -> Path:
    model = torch.nn.Linear(2, 2)
    optimiser = build_optimiser(model.parameters(), TrainingSpec())
    return save_checkpoint(folder, step, {"model": model}, optimiser, DivergenceGuard(), {}, origin)


def test_what_a_checkpoint_was_made_from_is_held_against_what_there_is(tmp_path: Path) -> None:
    check_origin(tmp_path / "absent", ORIGIN)
    save(tmp_path, 1, ORIGIN)
    check_origin(tmp_path, ORIGIN)
    with pytest.raises(BadCaptionsError, match=r"step-00000001.* was aaaaaaaaaaaa and is cccccc") as caught:
        check_origin(tmp_path, replace(ORIGIN, captions="c" * 64))
    assert caught.value.hint.endswith("retry the job from scratch")
    with pytest.raises(BadTeacherError, match=r"step-00000001.* was bbbbbbbbbbbb and is dddddd"):
        check_origin(tmp_path, replace(ORIGIN, teacher="d" * 64))


def test_a_checkpoint_of_an_earlier_release_may_be_gone_on_from(tmp_path: Path) -> None:
    checkpoint = save(tmp_path, 1, ORIGIN)
    manifest = json.loads((checkpoint / "manifest.json").read_text())
    del manifest["origin"]
    (checkpoint / "manifest.json").write_text(json.dumps(manifest))
    check_origin(tmp_path, replace(ORIGIN, captions="c" * 64))
    assert newest_checkpoint(tmp_path) == checkpoint
    (checkpoint / "manifest.json").write_text("{")  # torn, and passed over
    check_origin(tmp_path, replace(ORIGIN, captions="c" * 64))


def test_a_run_that_began_before_damaged_checkpoints_keeps_its_own_in_their_place(tmp_path: Path) -> None:
    for step in (2_000, 3_000):
        (save(tmp_path, step, ORIGIN) / "model.safetensors").write_bytes(b"torn")
    assert newest_checkpoint(tmp_path) is None
    for step, kept in ((1_000, [1_000]), (2_000, [1_000, 2_000]), (3_000, [2_000, 3_000])):
        saved = save(tmp_path, step, ORIGIN)
        assert newest_checkpoint(tmp_path) == saved
        assert list(map(checkpoint_step, complete_checkpoints(tmp_path))) == kept


@pytest.mark.parametrize("file", ["manifest.json", "model.safetensors"])
def test_a_checkpoint_that_cannot_be_read_just_now_is_not_taken_for_a_damaged_one(
    tmp_path: Path, file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that went on from the one before would remove it at its next save."""
    for step in (1, 2):
        save(tmp_path, step, ORIGIN)
    newest = tmp_path / "step-00000002"
    open_file = io.open
    error_number = errno.ESTALE

    def refuse(path: Any, *arguments: Any, **options: Any) -> Any:
        if path == newest / file:
            raise OSError(error_number, os.strerror(error_number), str(path))
        return open_file(path, *arguments, **options)

    with monkeypatch.context() as patches:
        patches.setattr(io, "open", refuse)
        with pytest.raises(OSError, match="Stale"):
            newest_checkpoint(tmp_path)
    assert newest_checkpoint(tmp_path) == newest
    error_number = errno.EIO
    with monkeypatch.context() as patches:
        patches.setattr(io, "open", refuse)
        assert newest_checkpoint(tmp_path) == tmp_path / "step-00000001"
    (newest / file).unlink()
    assert newest_checkpoint(tmp_path) == tmp_path / "step-00000001"


def test_a_later_attempt_must_find_the_captions_and_the_teacher_of_the_first(
    make_spec: Callable[..., DistillationSpec], teachers_dir: Path, tmp_path: Path
) -> None:
    texts = tmp_path / "captions.txt"
    spec = make_spec(
        captions={"kind": "file", "path": str(texts)},
        drawn={"count": 2},
        training={"steps": 1, "batch_size": 2},
        evaluation={"samples": 2, "steps": 1, "bootstrap_resamples": 0},
    )

    def attempt(name: str, teachers: Path) -> None:
        workdir = tmp_path / name
        if name != "first":
            shutil.copytree(tmp_path / "first" / "checkpoints", workdir / "checkpoints")
        with closing(EventWriter(workdir / "events.jsonl")) as events:
            run_job(Job(spec, workdir, [teachers], tmp_path / "cache", events, StopRequest()))

    texts.write_text("small cat\nlarge dog\nfish\n")
    attempt("first", teachers_dir)
    other = shutil.copytree(teachers_dir, tmp_path / "teachers")
    with next((other / "weights" / "unet").glob("*.safetensors")).open("r+b") as weights:
        weights.seek(-4, 2)
        weights.write(b"\0\0\0\0")
    with pytest.raises(BadTeacherError, match="the teacher has changed"):
        attempt("other teacher", other)
    texts.write_text("small zebra\nlarge dog\nfish\n")
    with pytest.raises(BadCaptionsError, match="the captions, or which of them are drawn, have changed"):
        attempt("other captions", teachers_dir)
