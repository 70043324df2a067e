"""Files appear complete or not at all."""

from pathlib import Path

import pytest

from core.files import describe_files, remove_leftovers, replacing, sha256, write_json


def test_a_failed_block_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_text("old")

    def fail_midway() -> None:
        with replacing(target) as temporary:
            temporary.write_text("new")
            raise RuntimeError("midway")

    with pytest.raises(RuntimeError, match="midway"):
        fail_midway()
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_folder_replaces_a_folder(tmp_path: Path) -> None:
    target = tmp_path / "folder"
    for content in ("one", "two"):
        with replacing(target) as temporary:
            (temporary / "inner").mkdir(parents=True)
            (temporary / "inner" / content).write_text(content)
    assert [file["path"] for file in describe_files(target)] == ["inner/two"]


def test_leftovers_of_a_killed_process_are_removed(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / ".step-1.77.tmp").mkdir()
    (tmp_path / "kept" / ".step-1.77.tmp" / "file").touch()
    (tmp_path / ".torn.77.tmp").touch()
    remove_leftovers(tmp_path)
    assert [path.name for path in tmp_path.rglob("*")] == ["kept"]


def test_descriptions_hold_size_and_hash(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"ü": 1})
    (described,) = describe_files(tmp_path)
    assert described == {
        "path": "a.json",
        "size": (tmp_path / "a.json").stat().st_size,
        "sha256": sha256(tmp_path / "a.json"),
    }
