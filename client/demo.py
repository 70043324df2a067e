"""``condenser demo``'s own part: its job, and the picture that shows what came of it.

The student is judged as a user would meet it: loaded by plain diffusers, in a process that has none of our
code's training side in it.
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from client.errors import ClientError
from core.spec import find_teacher

SPEC_FILE = Path(__file__).with_name("demo_spec.json")
BUNDLED_TEACHERS = Path(__file__).resolve().parent.parent / "teachers"
PICTURE_FILE = "teacher-vs-student.png"
SPLITS = (("drawn", "captions that the teacher drew"), ("text_only", "captions that were only read"))


class PictureError(ClientError):
    """The student could not be loaded or drawn."""


def read_spec(file: Path) -> dict[str, Any]:
    """Read a job's specification."""
    spec: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return spec


def draw_picture(spec: Mapping[str, Any], student: Path, directory: Path) -> Path:
    """Let a process of its own draw the specification's prompts with teacher and student.

    Raises
    ------
    PictureError
        If it fails; what it said went to the terminal.
    """
    teacher = find_teacher(spec["teacher"], _teacher_folders())
    picture = directory / PICTURE_FILE
    drawn = set(spec["drawn"]["texts"])
    evaluation = spec["evaluation"]
    request = {
        "teacher": str(teacher.path),
        "student": str(student),
        "picture": str(picture),
        "prompts": [{"text": text, "drawn": text in drawn} for text in evaluation["grid_prompts"]],
        "steps": evaluation["steps"],
        "guidance_scale": evaluation["guidance_scale"],
        "seed": spec["seed"],
        "title": f"{spec['teacher']} and its student {spec['student']}",
    }
    ended = subprocess.run(
        [sys.executable, "-m", "embedded.side_by_side"],
        input=json.dumps(request),
        text=True,
        cwd=BUNDLED_TEACHERS.parent,
        env={**os.environ, "TRANSFORMERS_VERBOSITY": "error"},  # it speaks while it is being imported
        check=False,
    )
    if ended.returncode:
        raise PictureError("the student could not be drawn")
    return picture


def _teacher_folders() -> list[Path]:
    """Return the folders where the service, started by this command, finds its teachers."""
    named = [Path(folder) for folder in os.environ.get("TEACHERS_DIRS", "").split(os.pathsep) if folder]
    return [*named, *sorted(weights.parent for weights in BUNDLED_TEACHERS.glob("*/weights"))]


def summarise(result: Mapping[str, Any]) -> list[str]:
    """Say what was measured of teacher and student, a line for each split of the captions."""
    lines = []
    for split, words in SPLITS:
        figures = result.get(split)
        if figures is None:
            continue
        parts = []
        for model in ("teacher", "student"):
            shares = [
                f"top-{count} {figures[model][f'nearest_top{count}']:.0%}"
                for count in (1, 5)
                if f"nearest_top{count}" in figures[model]
            ]
            distance = f"Fréchet distance {figures[model]['frechet_distance']:.3g}"
            parts.append(f"{model} {', '.join([*shares, distance])}")
        lines.append(f"{words}: nearest emoji {'; '.join(parts)}")
    return lines
