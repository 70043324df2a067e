"""The whole way, as ``condenser demo`` goes it: servers, API, worker, trainer, download, picture.

The teacher is tiny and draws noise; everything else is what a user runs.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from client.address import DEFAULT_DATA_DIR
from embedded import processes
from embedded.stack import stop
from tests.core.conftest import small_spec, write_tiny_teacher

REPOSITORY = Path(__file__).parents[2]
DRAWN = ["small cat", "large dog"]
ONLY_READ = ["small tree"]


@pytest.fixture
def folder() -> Iterator[Path]:
    """A working folder outside pytest's own: under root, another run of pytest closes that to Postgres."""
    with tempfile.TemporaryDirectory(prefix="condenser-") as root:
        yield Path(root)
        stop(Path(root) / DEFAULT_DATA_DIR)


@pytest.mark.timeout(600)
def test_demo_makes_the_picture_and_stops_everything(folder: Path) -> None:
    write_tiny_teacher(folder / "teachers" / "tiny")
    spec = small_spec(drawn={"texts": DRAWN}).model_dump(mode="json")
    spec["evaluation"]["grid_prompts"] = DRAWN + ONLY_READ
    (folder / "spec.json").write_text(json.dumps(spec))
    named = {"TEACHERS_DIRS": str(folder / "teachers"), "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-c", "from client.cli import app; app()", "demo", "--spec", "spec.json"]

    ended = subprocess.run(command, capture_output=True, text=True, cwd=folder, env={**os.environ, **named})

    assert ended.returncode == 0, ended.stderr
    assert list(processes.marked(str((folder / DEFAULT_DATA_DIR).resolve()))) == []
    lines = ended.stdout.splitlines()
    assert lines[-1] == f"picture: {folder.resolve() / 'demo' / 'teacher-vs-student.png'}"
    assert "captions that the teacher drew: nearest emoji teacher top-1" in ended.stdout
    with Image.open(folder / "demo" / "teacher-vs-student.png") as picture:
        assert picture.width > 2 * 128
    index = json.loads((folder / "demo" / "student" / "model_index.json").read_text())
    assert index["_class_name"] == "StableDiffusionPipeline"
    for phase in ("captions", "latents", "training", "evaluation", "export"):
        assert any(line.startswith(phase) for line in ended.stderr.splitlines()), phase
