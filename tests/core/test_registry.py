"""Teachers are found by id, broken ones are passed over, and changed ones are read again."""

import errno
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from core.errors import BadTeacherError, UnknownTeacherError
from core.registry import find_teacher, list_teachers
from core.teacher_folder import read_teacher
from tests.core.refused_paths import refuse


def test_teacher_json_names_the_teacher(teachers_dir: Path) -> None:
    info = find_teacher("emoji-64", [teachers_dir])
    assert info.path == teachers_dir / "weights"
    assert info.family == "sd1"
    assert info.licence == "apache-2.0"
    assert info.caption_set == teachers_dir / "weights" / "captions.txt"


def test_without_teacher_json_the_folder_names_it(copied_teachers: Path) -> None:
    (copied_teachers / "weights" / "teacher.json").unlink()
    assert [teacher.id for teacher in list_teachers([copied_teachers])] == ["weights"]


def test_an_unknown_teacher_lists_the_known_ones(teachers_dir: Path) -> None:
    with pytest.raises(UnknownTeacherError) as caught:
        find_teacher("sd-9", [teachers_dir, teachers_dir / "absent"])
    assert caught.value.known == ["emoji-64"]


def test_a_broken_folder_does_not_hide_the_others(copied_teachers: Path) -> None:
    for name, content in (("a", "not json"), ("b", '{"_class_name": "FluxPipeline"}'), ("c", "[]")):
        (copied_teachers / name).mkdir()
        (copied_teachers / name / "model_index.json").write_text(content)
    assert [teacher.id for teacher in list_teachers([copied_teachers])] == ["emoji-64"]


@pytest.mark.parametrize(
    ("file", "leads_to"),
    [
        ("unet/diffusion_pytorch_model.safetensors", "absent"),
        ("unet/diffusion_pytorch_model.safetensors", "."),
        ("unet/config.json", "absent"),
        ("unet", "absent"),
        ("unet/notes", "notes"),
    ],
)
def test_a_folder_with_links_that_lead_nowhere_does_not_hide_the_others(
    copied_teachers: Path, file: str, leads_to: str
) -> None:
    broken = copied_teachers / "broken" / file
    shutil.copytree(copied_teachers / "weights", copied_teachers / "broken")
    if broken.is_dir():
        shutil.rmtree(broken)
    broken.unlink(missing_ok=True)
    broken.symlink_to(leads_to)
    assert [teacher.id for teacher in list_teachers([copied_teachers])] == ["emoji-64"]


@pytest.mark.parametrize(
    "file", ["README.md", "unet/diffusion_pytorch_model.safetensors", "teacher.json", "vae"]
)
def test_what_may_not_be_read_is_a_bad_teacher_and_hides_no_other(
    copied_teachers: Path, file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(copied_teachers / "weights", copied_teachers / "other")
    (copied_teachers / "other" / "teacher.json").write_text("{}")
    (copied_teachers / "other" / "README.md").write_text("---\nlicense: mit\n---\n")

    refuse(monkeypatch, copied_teachers / "other" / file, errno.EACCES)
    assert [teacher.id for teacher in list_teachers([copied_teachers])] == ["emoji-64"]
    with pytest.raises(UnknownTeacherError):
        find_teacher("other", [copied_teachers])


@pytest.mark.parametrize(
    ("file", "number"),
    [
        ("weights/README.md", errno.EIO),
        ("weights/unet/config.json", errno.ENOMEM),
        ("weights/unet/diffusion_pytorch_model.safetensors", errno.EMFILE),
        ("weights/unet", errno.ENOENT),  # while it was listed
        ("weights/model_index.json", errno.ESTALE),
        (".", errno.ESTALE),
    ],
)
def test_what_cannot_be_read_just_now_may_be_the_teacher_that_is_asked_for(
    copied_teachers: Path, tmp_path: Path, file: str, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "others" / "other"
    shutil.copytree(copied_teachers / "weights", other)
    (other / "teacher.json").write_text("{}")
    directories = [copied_teachers, other.parent]
    with monkeypatch.context() as patches:
        refuse(patches, copied_teachers / file, number)
        assert [teacher.id for teacher in list_teachers(directories)] == ["other"]
        assert find_teacher("other", directories).path == other
        with pytest.raises(OSError, match=re.escape(os.strerror(number))):
            find_teacher("emoji-64", directories)
    assert find_teacher("emoji-64", directories).path == copied_teachers / "weights"


def test_a_folder_is_read_again_only_when_a_file_of_it_changes(copied_teachers: Path) -> None:
    first = find_teacher("emoji-64", [copied_teachers])
    assert find_teacher("emoji-64", [copied_teachers]) is first
    before = first.revision
    weights = copied_teachers / "weights" / "vae" / "diffusion_pytorch_model.safetensors"
    with weights.open("r+b") as file:
        file.seek(-4, 2)
        file.write(b"\x01\x02\x03\x04")
    assert find_teacher("emoji-64", [copied_teachers]).revision != before
    (copied_teachers / "weights" / "model_index.json").unlink()
    assert list_teachers([copied_teachers]) == []


def test_the_specification_needs_no_torch(teachers_dir: Path) -> None:
    program = (
        "import sys, pathlib\n"
        "from core.spec import ParameterBudget, choose_student, derive_student, find_teacher\n"
        f"info = find_teacher('emoji-64', [pathlib.Path({str(teachers_dir)!r})])\n"
        "derive_student(info.unet_config, 'b-tiny')\n"
        "choose_student(info.unet_config, ParameterBudget(max_params=10**6))\n"
        "assert not {'torch', 'numpy', 'diffusers', 'transformers'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=Path(__file__).parents[2])


def test_the_caption_set_beside_the_teacher_is_named_by_teacher_json(copied_teachers: Path) -> None:
    about = copied_teachers / "weights" / "teacher.json"
    about.write_text(json.dumps({"id": "other"}))
    assert find_teacher("other", [copied_teachers]).caption_set is None


@pytest.mark.parametrize("field", ["id", "name", "description", "licence", "caption_set"])
@pytest.mark.parametrize("value", [["a"], 5, {}, True, "a\0b", "\ud800"], ids=ascii)
def test_a_teacher_json_of_wrong_types_is_a_bad_teacher_and_hides_no_other(
    copied_teachers: Path, field: str, value: Any
) -> None:
    shutil.copytree(copied_teachers / "weights", copied_teachers / "other")
    (copied_teachers / "other" / "teacher.json").write_text(json.dumps({field: value}))
    with pytest.raises(BadTeacherError, match=r"teacher\.json has fields of the wrong type"):
        read_teacher(copied_teachers / "other")
    assert [teacher.id for teacher in list_teachers([copied_teachers])] == ["emoji-64"]
