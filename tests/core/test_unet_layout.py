"""The layout names every tensor that diffusers makes, with its shape, and counts what a pass costs."""

import math
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from hypothesis import given, settings
from hypothesis import strategies as st

from core.cost import count_multiply_accumulates
from core.errors import BadTeacherError
from core.spec import PRESETS, derive_student, fitting_presets
from core.unet_layout import Channels, check_unet, unet_layout

FAMILIES = ["sd14_config", "sd21_config", "sdxl_config"]


def shapes_on_meta_device(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(config)
    return {name: tuple(tensor.shape) for name, tensor in unet.state_dict().items()}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_student_of_every_family_has_the_tensors_that_diffusers_makes(
    family: str, request: pytest.FixtureRequest
) -> None:
    teacher = request.getfixturevalue(family)
    for config in (teacher, *(derive_student(teacher, preset) for preset in fitting_presets(teacher))):
        assert unet_layout(config).shapes == shapes_on_meta_device(config)


@pytest.mark.parametrize("family", FAMILIES)
def test_multiply_accumulates_are_those_of_a_forward_pass(
    family: str, request: pytest.FixtureRequest
) -> None:
    config = request.getfixturevalue(family)
    counted = unet_layout(config, prompt_tokens=77).layer_multiply_accumulates
    assert counted == count_multiply_accumulates(config, prompt_tokens=77)


def test_attention_adds_what_makes_a_training_sample_cost_2370_gflop(sd14_config: dict[str, Any]) -> None:
    """Counted once for Stable Diffusion 1.4 and b-base: 803 in the teacher, 1,567 in the student.

    The latter leaves out gradients that nobody asks for, such as those of the captions: a thousandth.
    """
    teacher = unet_layout(sd14_config).multiply_accumulates
    student = unet_layout(derive_student(sd14_config, "b-base")).multiply_accumulates
    assert round(2 * teacher / 1e9) == 803
    assert 3 * 2 * student / 1e9 == pytest.approx(1567, rel=2e-3)


@settings(max_examples=10, deadline=None)
@given(
    units=st.lists(st.integers(1, 3), min_size=2, max_size=4),
    layers=st.integers(1, 2),
    depth=st.integers(1, 2),
    attending=st.lists(st.booleans(), min_size=4, max_size=4),
    linear=st.booleans(),
    mid=st.sampled_from(["UNetMidBlock2DCrossAttn", None]),
    size=st.integers(5, 9),
)
def test_the_layout_holds_for_any_shape(
    units: list[int], layers: int, depth: int, attending: list[bool], linear: bool, mid: str | None, size: int
) -> None:
    kinds = ["CrossAttn" if attends else "" for attends in attending[: len(units)]]
    config = {
        "sample_size": size,
        "block_out_channels": [8 * unit for unit in units],
        "norm_num_groups": 4,
        "attention_head_dim": 2,
        "cross_attention_dim": 6,
        "layers_per_block": layers,
        "transformer_layers_per_block": depth,
        "down_block_types": [f"{kind}DownBlock2D" for kind in kinds],
        "up_block_types": [f"{kind}UpBlock2D" for kind in reversed(kinds)],
        "mid_block_type": mid,
        "use_linear_projection": linear,
    }
    layout = unet_layout(config, prompt_tokens=5)
    shapes = shapes_on_meta_device(config)
    assert layout.shapes == shapes
    assert layout.parameters == sum(math.prod(shape) for shape in shapes.values())
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(config)
        assert (
            unet(torch.empty(1, 4, size, size), torch.zeros(1), torch.empty(1, 5, 6)).sample.shape[-1] == size
        )
    assert layout.layer_multiply_accumulates == count_multiply_accumulates(config, prompt_tokens=5)


def test_a_residual_stream_is_the_same_channels_wherever_it_flows(sd14_config: dict[str, Any]) -> None:
    layers = {layer.name: layer for layer in unet_layout(sd14_config).layers}
    (stream,) = layers["conv_in"].outputs
    assert layers["down_blocks.0.resnets.0.conv2"].outputs == (stream,)
    assert layers["down_blocks.0.attentions.1.proj_out"].outputs == (stream,)
    assert layers["down_blocks.0.downsamplers.0.conv"].inputs == (stream,)
    assert layers["up_blocks.3.resnets.2.conv1"].inputs[1] is stream
    assert layers["up_blocks.3.resnets.2.conv1"].inputs[0] is not stream


def test_norm_groups_that_straddle_a_concatenation_leave_edges_in_both_parts(
    sd14_config: dict[str, Any],
) -> None:
    """640 + 320 channels in 32 groups of 30: the 22nd group ends 20 channels into the skip connection."""
    layers = {layer.name: layer for layer in unet_layout(sd14_config).layers}
    stream, skip = layers["up_blocks.3.resnets.0.norm1"].outputs
    assert isinstance(stream, Channels)
    assert (stream.count, skip.count) == (640, 320)
    assert {30, 60, 630} <= stream.edges
    assert {20, 50, 290} <= skip.edges


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"encoder_hid_dim_type": "image_proj"}, "encoder_hid_dim_type 'image_proj'"),
        ({"mid_block_type": "UNetMidBlock2DSimpleCrossAttn"}, "SimpleCrossAttn"),
        ({"down_block_types": ["AttnDownBlock2D"] * 4}, "a AttnDownBlock2D"),
    ],
)
def test_parts_that_no_family_has_are_refused(
    change: dict[str, Any], named: str, sd14_config: dict[str, Any]
) -> None:
    check_unet(sd14_config)
    with pytest.raises(BadTeacherError, match=named):
        check_unet(sd14_config | change)


def test_every_preset_fits_some_family(request: pytest.FixtureRequest) -> None:
    fitting = {preset for family in FAMILIES for preset in fitting_presets(request.getfixturevalue(family))}
    assert fitting == set(PRESETS)
