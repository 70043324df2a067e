"""A loaded teacher turns latents into pictures."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from core import teacher as module
from core.errors import BadTeacherError, OutOfMemoryError
from core.teacher import Teacher, load_teacher
from core.teacher_folder import read_teacher


def test_no_more_pictures_are_decoded_at_once_than_memory_is_meant_for(
    teacher: Teacher, monkeypatch: pytest.MonkeyPatch
) -> None:
    latents = torch.randn(5, *teacher.latent_shape, generator=torch.Generator().manual_seed(0))
    expected, sizes = teacher.decode(latents), []
    height, width = expected.shape[2:]
    monkeypatch.setattr(module, "DECODED_PIXELS", 2 * height * width)
    hook = teacher.vae.decoder.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    with hook:
        decoded = teacher.decode(latents)
    assert sizes == [2, 2, 1]
    assert decoded.dtype == torch.uint8
    assert (decoded.int() - expected.int()).abs().max() <= 1


def test_a_damaged_weight_file_is_a_bad_teacher(copied_teachers: Path) -> None:
    info = read_teacher(copied_teachers / "weights")
    (copied_teachers / "weights" / "vae" / "diffusion_pytorch_model.safetensors").write_bytes(b"torn")
    with pytest.raises(BadTeacherError, match="cannot be loaded"):
        load_teacher(info, torch.device("cpu"))


def test_missing_weights_are_a_bad_teacher(copied_teachers: Path) -> None:
    file = copied_teachers / "weights" / "unet" / "diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    del weights["conv_in.weight"]
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(BadTeacherError, match=r"conv_in\.weight"):
        load_teacher(read_teacher(copied_teachers / "weights"), torch.device("cpu"))


def test_a_lack_of_memory_is_no_fault_of_the_teacher(teachers_dir: Path, tmp_path: Path) -> None:
    """Embeddings that no weight file holds are allocated: here more than any process can address."""
    folder = shutil.copytree(teachers_dir / "weights", tmp_path / "teacher")
    weights, config = (folder / "text_encoder" / name for name in ("model.safetensors", "config.json"))
    tensors = load_file(weights)
    save_file(
        {name: each for name, each in tensors.items() if "token_embedding" not in name},
        weights,
        metadata={"format": "pt"},
    )
    config.write_text(json.dumps(json.loads(config.read_text()) | {"vocab_size": 10**13}))
    with pytest.raises(OutOfMemoryError):
        load_teacher(read_teacher(folder), torch.device("cpu"))


def test_a_picture_larger_than_the_limit_is_decoded_alone(
    teacher: Teacher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "DECODED_PIXELS", 1)
    assert len(teacher.decode(torch.zeros(2, *teacher.latent_shape))) == 2
