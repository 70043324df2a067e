"""``condenser verify`` on folders as a download leaves them; it asks no service."""

import json
import subprocess
import sys
from pathlib import Path

COMMAND = [sys.executable, "-c", "from client.cli import app; app()", "verify"]


def verify(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([*COMMAND, *map(str, arguments)], capture_output=True, text=True, check=False)


def test_a_folder_that_is_not_what_its_manifest_says_is_refused(tmp_path: Path) -> None:
    listed = {"path": "model_index.json", "size": 2, "sha256": "0" * 64}
    (tmp_path / "manifest.json").write_text(json.dumps({"format": 1, "files": [listed]}))
    ended = verify(tmp_path)
    assert ended.returncode == 1
    assert ended.stdout == f"{tmp_path}: model_index.json is missing\n"
    told = json.loads(verify("--json", tmp_path).stdout)
    assert told == {"sound": False, "said": [f"{tmp_path}: model_index.json is missing"]}


def test_there_must_be_a_folder(tmp_path: Path) -> None:
    ended = verify(tmp_path / "absent")
    assert ended.returncode == 2
    assert "Invalid value" in ended.stderr
