"""What a worker clears from its disk."""

import os
from pathlib import Path
from typing import Any

from sqlalchemy import Engine

from worker.housekeeping import oldest_work, remove_dead_work, trim_cache


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
    old, older, new = (
        make_entry(tmp_path, name, size=100, used_at=at) for name, at in (("b", 2e6), ("a", 1e6), ("c", 3e6))
    )
    assert trim_cache(tmp_path, max_bytes=300, in_use_since=None, missing_bytes=-50) == []
    assert trim_cache(tmp_path, max_bytes=299, in_use_since=None) == [older]
    assert trim_cache(tmp_path, max_bytes=0, in_use_since=2.5e6) == [old]
    assert new.exists()
    assert trim_cache(tmp_path / "none", max_bytes=0, in_use_since=None) == []


def test_the_oldest_work_is_that_of_the_attempt_that_began_first(tmp_path: Path) -> None:
    assert oldest_work(tmp_path) is None
    for job, began in (("a", 2e6), ("b", 1e6)):
        folder = tmp_path / job / "1"
        folder.mkdir(parents=True)
        (folder / "spec.json").write_text("{}")
        os.utime(folder / "spec.json", (began, began))
    assert oldest_work(tmp_path) == 1e6
