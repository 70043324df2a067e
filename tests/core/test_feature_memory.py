"""What matching features holds, counted and measured."""

from functools import partial
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, UNet2DConditionModel

from core.batches import Batch
from core.cost import random_conditions
from core.feature_memory import feature_bytes
from core.memory_use import computation_memory_bytes
from core.method_spec import FeatureMatchingSpec, MethodSpec
from core.noise_matching import NoiseMatching
from core.noise_process import noise_process
from core.spec import WidthStudent
from core.students import ExactStudent, derive_student
from core.taps import tap_pair
from core.unet_layout import unet_layout
from core.unet_memory import checkpointed_bytes, saved_bytes

CPU = torch.device("cpu")


@pytest.fixture
def narrow_sd14(sd14_config: dict[str, Any]) -> dict[str, Any]:
    """A U-Net of Stable Diffusion 1.4's blocks and heads, small enough to be run."""
    small = {"norm_num_groups": 8, "cross_attention_dim": 64, "sample_size": 32}
    return sd14_config | small | {"block_out_channels": [16, 32, 64, 64]}


@pytest.mark.parametrize("student", ["b-tiny", WidthStudent(width=0.5)], ids=str)
@pytest.mark.parametrize("checkpointing", [False, True], ids=["kept", "computed again"])
@pytest.mark.parametrize("cross_attention", [False, True], ids=["blocks", "with cross-attention"])
def test_what_a_step_holds_for_a_sample_is_counted_to_a_fifth(
    student: ExactStudent, checkpointing: bool, cross_attention: bool, narrow_sd14: dict[str, Any]
) -> None:
    features = FeatureMatchingSpec(cross_attention=cross_attention)
    configs = narrow_sd14, derive_student(narrow_sd14, student)
    teacher, trained = (UNet2DConditionModel.from_config(config) for config in configs)
    if checkpointing:
        trained.enable_gradient_checkpointing()
    taps = tap_pair(teacher, trained, features, seed=1)
    process = noise_process(DDIMScheduler().alphas_cumprod, {"prediction_type": "epsilon"})
    objective = NoiseMatching(taps[0], process, MethodSpec(features=features), 50, torch.float32)

    def train(samples: int) -> None:
        conditions = random_conditions(narrow_sd14, 16, samples, CPU)
        latents, noise = torch.randn(2, samples, 4, 32, 32)
        timesteps, matches = torch.arange(samples), torch.ones(samples)
        for terms in objective(taps[1], Batch(latents, noise, timesteps, conditions, matches, conditions)):
            terms["loss"].backward()
        taps[1].zero_grad()

    few, more = (computation_memory_bytes(partial(train, samples), taps, CPU) for samples in (2, 4))
    theirs, ours = (unet_layout(config, prompt_tokens=16) for config in configs)
    counted = feature_bytes(theirs, ours, features, 4)
    saved = (checkpointed_bytes if checkpointing else saved_bytes)(ours, 4)
    assert 2 * (saved + counted) == pytest.approx(more - few, rel=0.2)
