"""Files appear complete or not at all."""

import json
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


def test_two_writers_of_one_process_id_keep_out_of_each_others_way(tmp_path: Path) -> None:
    target = tmp_path / "file"
    with replacing(target) as ours:
        ours.write_text("ours")
        with replacing(target) as theirs:
            theirs.write_text("theirs")
        assert target.read_text() == "theirs"
    assert target.read_text() == "ours"
    assert list(tmp_path.iterdir()) == [target]


def test_json_holds_text_that_is_no_utf_8(tmp_path: Path) -> None:
    content = {"caption": "a \ud800 cat", "\udfff": "🐭"}
    write_json(tmp_path / "file.json", content)
    assert json.loads((tmp_path / "file.json").read_text(encoding="utf-8")) == content


def test_what_is_being_written_would_be_a_leftover(tmp_path: Path) -> None:
    def write() -> None:
        with replacing(tmp_path / "file") as temporary:
            temporary.touch()
            remove_leftovers(tmp_path)

    with pytest.raises(FileNotFoundError):  # nothing is left to take the file's place
        write()
    assert list(tmp_path.iterdir()) == []


def test_leftovers_of_a_killed_process_are_removed(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / ".step-1.77.5af3c0de.tmp").mkdir()
    (tmp_path / "kept" / ".step-1.77.5af3c0de.tmp" / "file").touch()
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
