"""Teachers are found by id, broken ones are passed over, and a revision follows the weights."""

import errno
import io
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from core.errors import BadTeacherError, UnknownTeacherError
from core.exported_size import VALUE_BYTES
from core.registry import UNET_DTYPES, find_teacher, list_teachers, read_teacher
from core.teacher import Teacher, load_teacher


@pytest.fixture
def copied(teachers_dir: Path, tmp_path: Path) -> Path:
    shutil.copytree(teachers_dir, tmp_path / "teachers")
    return tmp_path / "teachers"


def refuse(patches: pytest.MonkeyPatch, refused: Path, number: int) -> None:
    """Let the system give this error for one path: who runs the tests may be allowed to read everything."""

    def refusing(function: Callable[..., Any]) -> Callable[..., Any]:
        def refuse(path: Any, *arguments: Any, **options: Any) -> Any:
            if not isinstance(path, int) and os.fspath(path) == str(refused):
                raise OSError(number, os.strerror(number), str(path))
            return function(path, *arguments, **options)

        return refuse

    for module, name in ((io, "open"), (os, "scandir"), (os, "stat")):
        patches.setattr(module, name, refusing(getattr(module, name)))


def test_teacher_json_names_the_teacher(teachers_dir: Path) -> None:
    info = find_teacher("emoji-64", [teachers_dir])
    assert info.path == teachers_dir / "weights"
    assert info.family == "sd1"
    assert info.licence == "apache-2.0"
    assert info.caption_set == teachers_dir / "weights" / "captions.txt"


def test_without_teacher_json_the_folder_names_it(copied: Path) -> None:
    (copied / "weights" / "teacher.json").unlink()
    assert [teacher.id for teacher in list_teachers([copied])] == ["weights"]


def test_parameters_are_those_of_the_unet(teacher: Teacher) -> None:
    assert teacher.info.parameters == sum(p.numel() for p in teacher.unet.parameters())


def test_an_unknown_teacher_lists_the_known_ones(teachers_dir: Path) -> None:
    with pytest.raises(UnknownTeacherError) as caught:
        find_teacher("sd-9", [teachers_dir, teachers_dir / "absent"])
    assert caught.value.known == ["emoji-64"]


def test_a_broken_folder_does_not_hide_the_others(copied: Path) -> None:
    for name, content in (("a", "not json"), ("b", '{"_class_name": "FluxPipeline"}'), ("c", "[]")):
        (copied / name).mkdir()
        (copied / name / "model_index.json").write_text(content)
    assert [teacher.id for teacher in list_teachers([copied])] == ["emoji-64"]


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
    copied: Path, file: str, leads_to: str
) -> None:
    broken = copied / "broken" / file
    shutil.copytree(copied / "weights", copied / "broken")
    if broken.is_dir():
        shutil.rmtree(broken)
    broken.unlink(missing_ok=True)
    broken.symlink_to(leads_to)
    assert [teacher.id for teacher in list_teachers([copied])] == ["emoji-64"]


@pytest.mark.parametrize(
    "file", ["README.md", "unet/diffusion_pytorch_model.safetensors", "teacher.json", "vae"]
)
def test_what_may_not_be_read_is_a_bad_teacher_and_hides_no_other(
    copied: Path, file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(copied / "weights", copied / "other")
    (copied / "other" / "teacher.json").write_text("{}")
    (copied / "other" / "README.md").write_text("---\nlicense: mit\n---\n")

    refuse(monkeypatch, copied / "other" / file, errno.EACCES)
    assert [teacher.id for teacher in list_teachers([copied])] == ["emoji-64"]
    with pytest.raises(UnknownTeacherError):
        find_teacher("other", [copied])


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
    copied: Path, tmp_path: Path, file: str, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "others" / "other"
    shutil.copytree(copied / "weights", other)
    (other / "teacher.json").write_text("{}")
    directories = [copied, other.parent]
    with monkeypatch.context() as patches:
        refuse(patches, copied / file, number)
        assert [teacher.id for teacher in list_teachers(directories)] == ["other"]
        assert find_teacher("other", directories).path == other
        with pytest.raises(OSError, match=re.escape(os.strerror(number))):
            find_teacher("emoji-64", directories)
    assert find_teacher("emoji-64", directories).path == copied / "weights"


@pytest.mark.parametrize("file", ["README.md", "unet/config.json"])
def test_a_teacher_that_cannot_be_read_just_now_is_no_bad_one(
    copied: Path, file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (copied / "weights" / "teacher.json").write_text("{}")
    with monkeypatch.context() as patches:
        refuse(patches, copied / "weights" / file, errno.ESTALE)
        with pytest.raises(OSError, match="Stale"):
            read_teacher(copied / "weights")
    refuse(monkeypatch, copied / "weights" / file, errno.EACCES)
    with pytest.raises(BadTeacherError, match="Permission denied"):
        read_teacher(copied / "weights")


def test_the_revision_follows_the_weights_and_not_the_place(copied: Path, teachers_dir: Path) -> None:
    weights = copied / "weights" / "unet" / "diffusion_pytorch_model.safetensors"
    before = read_teacher(copied / "weights").revision
    assert before == read_teacher(teachers_dir / "weights").revision
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert read_teacher(copied / "weights").revision != before


def test_a_folder_is_read_again_only_when_a_file_of_it_changes(copied: Path) -> None:
    first = find_teacher("emoji-64", [copied])
    assert find_teacher("emoji-64", [copied]) is first
    before = first.revision
    weights = copied / "weights" / "vae" / "diffusion_pytorch_model.safetensors"
    with weights.open("r+b") as file:
        file.seek(-4, 2)
        file.write(b"\x01\x02\x03\x04")
    assert find_teacher("emoji-64", [copied]).revision != before
    (copied / "weights" / "model_index.json").unlink()
    assert list_teachers([copied]) == []


def test_pickled_weights_are_refused(copied: Path) -> None:
    unet = copied / "weights" / "unet"
    (unet / "diffusion_pytorch_model.safetensors").rename(unet / "diffusion_pytorch_model.bin")
    with pytest.raises(BadTeacherError, match=r"no safetensors weights, only .*\.bin: a pickle"):
        read_teacher(copied / "weights")


def test_a_damaged_weight_file_is_a_bad_teacher(copied: Path) -> None:
    import torch

    info = read_teacher(copied / "weights")
    (copied / "weights" / "vae" / "diffusion_pytorch_model.safetensors").write_bytes(b"torn")
    with pytest.raises(BadTeacherError, match="cannot be loaded"):
        load_teacher(info, torch.device("cpu"))


def test_missing_weights_are_a_bad_teacher(copied: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    file = copied / "weights" / "unet" / "diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    del weights["conv_in.weight"]
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(BadTeacherError, match=r"conv_in\.weight"):
        load_teacher(read_teacher(copied / "weights"), torch.device("cpu"))


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


def test_the_caption_set_beside_the_teacher_is_named_by_teacher_json(copied: Path) -> None:
    about = copied / "weights" / "teacher.json"
    about.write_text(json.dumps({"id": "other"}))
    assert find_teacher("other", [copied]).caption_set is None


def test_prompt_tokens_are_those_of_the_text_encoder(teacher: Teacher) -> None:
    assert teacher.info.prompt_tokens == teacher.tokenizer.model_max_length == 12


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
    card: str, licence: str | None, copied: Path
) -> None:
    (copied / "weights" / "README.md").write_text(card)
    assert read_teacher(copied / "weights").licence == "apache-2.0"
    (copied / "weights" / "teacher.json").unlink()
    info = read_teacher(copied / "weights")
    assert (info.licence, info.licence_is_other) == (licence, licence == "sai-nc")


@pytest.mark.parametrize("name", ["../captions.txt", "/etc/passwd", "a/../../b"])
def test_a_caption_set_outside_of_the_folder_is_refused(copied: Path, name: str) -> None:
    (copied / "weights" / "teacher.json").write_text(json.dumps({"caption_set": name}))
    with pytest.raises(BadTeacherError, match="outside of its folder"):
        read_teacher(copied / "weights")


@pytest.mark.parametrize("field", ["id", "name", "description", "licence", "caption_set"])
@pytest.mark.parametrize("value", [["a"], 5, {}, True, "a\0b", "\ud800"], ids=ascii)
def test_a_teacher_json_of_wrong_types_is_a_bad_teacher_and_hides_no_other(
    copied: Path, field: str, value: Any
) -> None:
    shutil.copytree(copied / "weights", copied / "other")
    (copied / "other" / "teacher.json").write_text(json.dumps({field: value}))
    with pytest.raises(BadTeacherError, match=r"teacher\.json has fields of the wrong type"):
        read_teacher(copied / "other")
    assert [teacher.id for teacher in list_teachers([copied])] == ["emoji-64"]


def test_a_field_of_teacher_json_that_is_null_says_nothing(copied: Path) -> None:
    about = copied / "weights" / "teacher.json"
    about.write_text(json.dumps(dict.fromkeys(("id", "name", "description", "licence", "caption_set"))))
    (teacher,) = list_teachers([copied])
    assert (teacher.id, teacher.title, teacher.licence, teacher.caption_set) == ("weights", None, None, None)


@pytest.mark.parametrize(
    "content",
    [
        b"\xff" * 8 + b"{}",
        b"\x02" + bytes(7) + b"[]",
        b"",
        b"[" * 200_000,
        *(
            len(header).to_bytes(8, "little") + header
            for header in (b'{"a": 1}', b'{"a": {"shape": [1]}}', b'{"a": {"dtype": "F32", "shape": ["1"]}}')
        ),
    ],
)
def test_a_hostile_weight_file_is_a_bad_teacher(copied: Path, content: bytes) -> None:
    (copied / "weights" / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(content)
    with pytest.raises(BadTeacherError, match="is not a safetensors file"):
        read_teacher(copied / "weights")


@pytest.mark.parametrize(("dtype", "name"), [("float8_e4m3fn", "F8_E4M3"), ("float64", "F64")])
@pytest.mark.parametrize("share", [1, 0.5])
def test_a_u_net_of_a_dtype_that_no_student_can_be_saved_in_is_refused(
    copied: Path, dtype: str, name: str, share: float
) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    file = copied / "weights" / "unet" / "diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    for converted in sorted(weights)[: int(share * len(weights))]:
        weights[converted] = weights[converted].to(getattr(torch, dtype))
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(BadTeacherError, match=f"weights's U-Net has weights stored as {name}$") as raised:
        read_teacher(copied / "weights")
    assert raised.value.hint == "convert the U-Net's weights; supported: F32, F16, BF16"
    assert list_teachers([copied]) == []


def test_a_u_net_without_a_tensor_is_refused(copied: Path) -> None:
    from safetensors.torch import save_file

    save_file({}, copied / "weights" / "unet" / "diffusion_pytorch_model.safetensors")
    with pytest.raises(BadTeacherError, match="hold no tensor"):
        read_teacher(copied / "weights")


def test_every_dtype_that_a_teacher_may_have_can_be_counted_and_saved() -> None:
    from core.export import DTYPES

    assert set(UNET_DTYPES) == set(DTYPES) == set(VALUE_BYTES)
