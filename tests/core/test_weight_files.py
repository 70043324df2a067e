"""Headers of weight files are read and checked, whatever their bytes are."""

from pathlib import Path

import pytest

from core.errors import BadTeacherError
from core.exported_size import VALUE_BYTES
from core.registry import list_teachers
from core.teacher_folder import read_teacher
from core.weight_files import UNET_DTYPES


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
def test_a_hostile_weight_file_is_a_bad_teacher(copied_teachers: Path, content: bytes) -> None:
    (copied_teachers / "weights" / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(content)
    with pytest.raises(BadTeacherError, match="is not a safetensors file"):
        read_teacher(copied_teachers / "weights")


@pytest.mark.parametrize(("dtype", "name"), [("float8_e4m3fn", "F8_E4M3"), ("float64", "F64")])
@pytest.mark.parametrize("share", [1, 0.5])
def test_a_u_net_of_a_dtype_that_no_student_can_be_saved_in_is_refused(
    copied_teachers: Path, dtype: str, name: str, share: float
) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    file = copied_teachers / "weights" / "unet" / "diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    for converted in sorted(weights)[: int(share * len(weights))]:
        weights[converted] = weights[converted].to(getattr(torch, dtype))
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(BadTeacherError, match=f"weights's U-Net has weights stored as {name}$") as raised:
        read_teacher(copied_teachers / "weights")
    assert raised.value.hint == "convert the U-Net's weights; supported: F32, F16, BF16"
    assert list_teachers([copied_teachers]) == []


def test_a_u_net_without_a_tensor_is_refused(copied_teachers: Path) -> None:
    from safetensors.torch import save_file

    save_file({}, copied_teachers / "weights" / "unet" / "diffusion_pytorch_model.safetensors")
    with pytest.raises(BadTeacherError, match="hold no tensor"):
        read_teacher(copied_teachers / "weights")


def test_every_dtype_that_a_teacher_may_have_can_be_counted_and_saved() -> None:
    from core.export import DTYPES

    assert set(UNET_DTYPES) == set(DTYPES) == set(VALUE_BYTES)
