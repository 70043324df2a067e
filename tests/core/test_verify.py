"""Verifying a student's folder: whole, or said what is not."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from core.files import describe_files, write_json
from core.verify import FORMAT, MANIFEST_FILE, find_problems, main


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet" / "weights.safetensors").write_bytes(b"weights")
    (tmp_path / "model_index.json").write_text("{}")
    write_json(tmp_path / MANIFEST_FILE, {"format": FORMAT, "files": describe_files(tmp_path)})
    return tmp_path


def test_a_folder_as_its_manifest_says_has_no_problem(folder: Path) -> None:
    assert find_problems(folder) == []


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (lambda f: (f / "model_index.json").unlink(), "model_index.json is missing"),
        (
            lambda f: (f / "unet" / "weights.safetensors").write_bytes(b"Weights"),
            "unet/weights.safetensors has another SHA-256",
        ),
        (
            lambda f: (f / "unet" / "weights.safetensors").write_bytes(b"we"),
            "unet/weights.safetensors has 2 bytes, not 7",
        ),
        (lambda f: (f / "extra.txt").write_text(""), "extra.txt is not listed"),
        (
            lambda f: (f / MANIFEST_FILE).write_text('{"format": 1}'),
            "manifest.json is broken: it has no 'files'",
        ),
        (
            lambda f: (f / MANIFEST_FILE).write_text('{"files": []}'),
            "manifest.json is broken: it has no 'format'",
        ),
        (
            lambda f: (f / MANIFEST_FILE).write_text('{"format": 99, "files": {}}'),
            "manifest.json has format 99, of which this version knows only 1",
        ),
    ],
)
def test_every_damage_is_said(folder: Path, damage: Callable[[Path], object], problem: str) -> None:
    damage(folder)
    assert find_problems(folder) == [problem]


GOOD = {"path": "model_index.json", "size": 2, "sha256": "0" * 64}


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"path": "a"}, "it lists {'path': 'a'} instead of path (str), size (int), sha256 (str)"),
        (GOOD | {"size": "2"}, "instead of path (str), size (int), sha256 (str)"),
        (GOOD | {"size": True}, "instead of path"),
        (GOOD | {"size": None}, "instead of path"),
        (GOOD | {"path": 3}, "instead of path"),
        (GOOD | {"path": ["a"]}, "instead of path"),
        (GOOD | {"sha256": None}, "instead of path"),
        ("model_index.json", "it lists 'model_index.json' instead of path"),
        (None, "it lists None instead of path"),
        (GOOD | {"path": "../model_index.json"}, "'../model_index.json', which is outside of the folder"),
        (GOOD | {"path": "unet/../../a"}, "'unet/../../a', which is outside of the folder"),
        (GOOD | {"path": "/etc/passwd"}, "'/etc/passwd', which is outside of the folder"),
    ],
    ids=str,
)
def test_a_manifest_that_lists_no_files_as_it_should_is_broken(
    folder: Path, entry: object, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / MANIFEST_FILE).write_text(json.dumps({"format": FORMAT, "files": [entry]}))
    (problem,) = find_problems(folder)
    assert problem.startswith("manifest.json is broken: it lists ")
    assert said in problem
    assert main([str(folder)]) == 1
    assert capsys.readouterr().out == f"{folder}: {problem}\n"


@pytest.mark.parametrize(
    "content",
    [
        "",
        "not json",
        "[]",
        "3",
        "null",
        "[" * 100_000,
        '{"format": 1, "files": 3}',
        '{"format": 1, "files": null}',
    ],
)
def test_what_is_no_manifest_at_all_is_broken(folder: Path, content: str) -> None:
    (folder / MANIFEST_FILE).write_text(content)
    (problem,) = find_problems(folder)
    assert problem.startswith("manifest.json is broken: ")


def test_a_manifest_of_other_bytes_than_text_is_broken(folder: Path) -> None:
    (folder / MANIFEST_FILE).write_bytes(b"\xff\xfe")
    (problem,) = find_problems(folder)
    assert problem.startswith("manifest.json is broken: ")


def test_code_is_refused_even_where_it_is_listed(folder: Path) -> None:
    (folder / "unet" / "model.py").write_text("print('hello')")
    (folder / MANIFEST_FILE).unlink()
    write_json(folder / MANIFEST_FILE, {"format": FORMAT, "files": describe_files(folder)})
    assert find_problems(folder) == ["unet/model.py is no data"]


def test_the_command_says_what_is_wrong(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(folder)]) == 1
    assert "diffusers does not load it" in capsys.readouterr().out
    (folder / MANIFEST_FILE).unlink()
    assert main([str(folder)]) == 1
    assert "there is no manifest.json" in capsys.readouterr().out
