"""Verifying a student's folder: whole, or said what is not."""

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
        (lambda f: (f / MANIFEST_FILE).write_text('{"format": 1}'), "manifest.json cannot be read: 'files'"),
        (
            lambda f: (f / MANIFEST_FILE).write_text('{"format": 99, "files": []}'),
            "manifest.json has format 99, of which this version knows only 1",
        ),
    ],
)
def test_every_damage_is_said(folder: Path, damage: Callable[[Path], object], problem: str) -> None:
    damage(folder)
    assert find_problems(folder) == [problem]


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
