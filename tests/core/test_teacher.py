"""A loaded teacher turns latents into pictures."""

import pytest
import torch

from core import teacher as module
from core.teacher import Teacher


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


def test_a_picture_larger_than_the_limit_is_decoded_alone(
    teacher: Teacher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "DECODED_PIXELS", 1)
    assert len(teacher.decode(torch.zeros(2, *teacher.latent_shape))) == 2
