"""A teacher's folder is read without its weights; what cannot be one is refused with the reason."""

import errno
import json
from pathlib import Path

import pytest

from core.errors import BadTeacherError
from core.registry import list_teachers
from core.teacher import Teacher
from core.teacher_folder import read_teacher
from tests.core.refused_paths import refuse


def test_parameters_are_those_of_the_unet(teacher: Teacher) -> None:
    assert teacher.info.parameters == sum(p.numel() for p in teacher.unet.parameters())


def test_prompt_tokens_are_those_of_the_text_encoder(teacher: Teacher) -> None:
    assert teacher.info.prompt_tokens == teacher.tokenizer.model_max_length == 12


def test_pickled_weights_are_refused(copied_teachers: Path) -> None:
    unet = copied_teachers / "weights" / "unet"
    (unet / "diffusion_pytorch_model.safetensors").rename(unet / "diffusion_pytorch_model.bin")
    with pytest.raises(BadTeacherError, match=r"no safetensors weights, only .*\.bin: a pickle"):
        read_teacher(copied_teachers / "weights")


@pytest.mark.parametrize("file", ["README.md", "unet/config.json"])
def test_a_teacher_that_cannot_be_read_just_now_is_no_bad_one(
    copied_teachers: Path, file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (copied_teachers / "weights" / "teacher.json").write_text("{}")
    with monkeypatch.context() as patches:
        refuse(patches, copied_teachers / "weights" / file, errno.ESTALE)
        with pytest.raises(OSError, match="Stale"):
            read_teacher(copied_teachers / "weights")
    refuse(monkeypatch, copied_teachers / "weights" / file, errno.EACCES)
    with pytest.raises(BadTeacherError, match="Permission denied"):
        read_teacher(copied_teachers / "weights")


def test_the_revision_follows_the_weights_and_not_the_place(
    copied_teachers: Path, teachers_dir: Path
) -> None:
    weights = copied_teachers / "weights" / "unet" / "diffusion_pytorch_model.safetensors"
    before = read_teacher(copied_teachers / "weights").revision
    assert before == read_teacher(teachers_dir / "weights").revision
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert read_teacher(copied_teachers / "weights").revision != before


@pytest.mark.parametrize(
    ("card", "licence"),
    [
        ("---\nlicense: creativeml-openrail-m\ntags:\n- a\n---\nlicense: mit\n", "creativeml-openrail-m"),
        ('---\nlicense: other\nlicense_name: "sai-nc"\n---\n', "sai-nc"),
        ("---\nlicense: other\n---\n", "other"),
        ("---\nlicense: other\nlicense_name:\n---\n", "other"),
        ("---\ntags: [a]\n---\n", None),
        ("# license: mit\n", None),
        ("", None),
    ],
)
def test_the_model_card_says_the_licence_where_teacher_json_does_not(
    card: str, licence: str | None, copied_teachers: Path
) -> None:
    (copied_teachers / "weights" / "README.md").write_text(card)
    assert read_teacher(copied_teachers / "weights").licence == "apache-2.0"
    (copied_teachers / "weights" / "teacher.json").unlink()
    info = read_teacher(copied_teachers / "weights")
    assert (info.licence, info.licence_is_other) == (licence, licence == "sai-nc")


@pytest.mark.parametrize("name", ["../captions.txt", "/etc/passwd", "a/../../b"])
def test_a_caption_set_outside_of_the_folder_is_refused(copied_teachers: Path, name: str) -> None:
    (copied_teachers / "weights" / "teacher.json").write_text(json.dumps({"caption_set": name}))
    with pytest.raises(BadTeacherError, match="outside of its folder"):
        read_teacher(copied_teachers / "weights")


def test_a_field_of_teacher_json_that_is_null_says_nothing(copied_teachers: Path) -> None:
    about = copied_teachers / "weights" / "teacher.json"
    about.write_text(json.dumps(dict.fromkeys(("id", "name", "description", "licence", "caption_set"))))
    (teacher,) = list_teachers([copied_teachers])
    assert (teacher.id, teacher.title, teacher.licence, teacher.caption_set) == ("weights", None, None, None)
