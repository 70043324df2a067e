"""What a worker clears from its disk."""

import errno
import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from core.cache import DESCRIPTION_FILE, HOLD_FILE, cache_entry, hold, remove_unless_held
from worker.housekeeping import remove_dead_work, trim_cache


def test_only_the_folder_of_the_running_attempt_is_kept(
    workplace: Any, engine: Engine, tmp_path: Path
) -> None:
    job_id = workplace.submit_job()
    claim = workplace.supervisor("finish")._claim()
    assert (claim.job_id, claim.attempt) == (job_id, 1)
    gone = "019ab2c4-7f1e-7c3a-9d52-0b6a4be1d9aa"
    folders = [tmp_path / job_id / "1", tmp_path / job_id / "0", tmp_path / gone / "1"]
    for folder in folders:
        folder.mkdir(parents=True)
        (folder / "file").write_text("x")
    assert sorted(remove_dead_work(engine, tmp_path)) == sorted(folders[1:])
    assert [path.relative_to(tmp_path) for path in tmp_path.rglob("file")] == [Path(job_id, "1", "file")]
    assert not (tmp_path / gone).exists()
    assert remove_dead_work(engine, tmp_path) == []


def make_entry(cache: Path, name: str, *, size: int, used_at: float) -> Path:
    entry = cache / "latents" / name
    entry.mkdir(parents=True)
    for file, age in (("shard", 1_000), ("entry.json", 0)):
        (entry / file).write_bytes(bytes(size // 2))
        os.utime(entry / file, (used_at - age, used_at - age))
    return entry


def test_the_least_recently_used_entries_go_first_and_only_as_many_as_need_to(tmp_path: Path) -> None:
    old, older, newest = (
        make_entry(tmp_path, name, size=100, used_at=at) for name, at in (("b", 2e6), ("a", 1e6), ("c", 3e6))
    )
    assert trim_cache(tmp_path, max_bytes=300, missing_bytes=-50) == []
    assert trim_cache(tmp_path, max_bytes=299) == [older]
    assert trim_cache(tmp_path, max_bytes=300, missing_bytes=1) == [old]
    assert newest.exists()
    assert trim_cache(tmp_path / "none", max_bytes=0) == []


def test_an_entry_that_cannot_be_removed_keeps_no_other_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one of another user: it stays the oldest, and so comes first each time."""
    locked, fixed, *others = (
        make_entry(tmp_path, name, size=100, used_at=at)
        for name, at in (("a", 1e6), ("b", 2e6), ("c", 3e6), ("d", 4e6))
    )
    (locked / HOLD_FILE).mkdir()
    rename = Path.rename

    def refuse(path: Path, target: Path) -> Path:
        if path == fixed:
            raise PermissionError(errno.EACCES, "Permission denied")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", refuse)
    assert trim_cache(tmp_path, max_bytes=300) == others[:1], "what stays is no room"
    assert trim_cache(tmp_path, max_bytes=0) == others[1:]
    assert (locked / "shard").exists()
    assert (fixed / "shard").exists()


HOLD = "import sys, pathlib, core.cache as c; c.hold(pathlib.Path(sys.argv[1])); print(); sys.stdin.read()"


def test_an_entry_stays_as_long_as_a_process_that_uses_it_and_no_longer(tmp_path: Path) -> None:
    """However it ends; of two jobs the one that began later and has ended keeps nothing."""
    held, unused = (make_entry(tmp_path, name, size=100, used_at=at) for name, at in (("a", 1e6), ("b", 2e6)))
    command = [sys.executable, "-c", HOLD, str(held)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]
    ) as user:
        assert user.stdout is not None
        user.stdout.readline()
        os.close(hold(unused))
        assert trim_cache(tmp_path, max_bytes=0) == [unused]
        user.kill()
    assert trim_cache(tmp_path, max_bytes=0) == [held]


def test_an_entry_of_which_only_a_part_was_removed_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The part that a killed worker leaves goes before everything else."""
    entry = make_entry(tmp_path, "a", size=100, used_at=1e6)
    monkeypatch.setattr(shutil, "rmtree", lambda folder, **_: (folder / "shard").unlink())
    assert remove_unless_held(entry)
    monkeypatch.undo()
    assert not entry.exists()
    (left,) = (tmp_path / "latents").iterdir()
    make_entry(tmp_path, "b", size=100, used_at=1e5)
    assert trim_cache(tmp_path, max_bytes=149) == [left]
    assert [path.name for path in (tmp_path / "latents").iterdir()] == ["b"]


def test_an_entry_that_was_made_anew_is_not_removed_by_who_found_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = make_entry(tmp_path, "a", size=100, used_at=1e6)
    lock = fcntl.flock

    def make_anew_first(descriptor: int, operation: int) -> None:
        monkeypatch.undo()
        shutil.rmtree(entry)
        make_entry(tmp_path, "a", size=100, used_at=2e6)
        hold(entry)
        lock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", make_anew_first)
    assert not remove_unless_held(entry)
    assert (entry / "shard").exists()


def test_what_shuts_others_out_is_open_for_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """NFS makes a lock of the whole file of it, and has none that excludes for a file open for reading."""
    entry = make_entry(tmp_path, "a", size=100, used_at=1e6)
    monkeypatch.setattr(fcntl, "flock", fcntl.lockf)
    os.close(hold(entry))
    assert trim_cache(tmp_path, max_bytes=0) == [entry]


def test_an_entry_that_is_removed_while_somebody_takes_hold_of_it_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, removed = fcntl.flock, []

    def remove_first(descriptor: int, operation: int) -> None:
        if not removed:
            removed.extend((tmp_path / "latents").iterdir())
            shutil.rmtree(removed[0])
        lock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", remove_first)
    folder = cache_entry(tmp_path, "latents", {"seed": 1})
    assert removed == [folder]
    assert cache_entry(tmp_path, "latents", {"seed": 1}) == folder
    assert sorted(path.name for path in folder.iterdir()) == [HOLD_FILE, DESCRIPTION_FILE]
    assert not remove_unless_held(folder)
