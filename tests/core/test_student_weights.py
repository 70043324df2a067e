"""Students start in the teacher's remaining blocks or channels, every tensor of them, or at random."""

import pytest
import torch
from diffusers import UNet2DConditionModel

from core.spec import WidthStudent, derive_student
from core.student_weights import build_student, teacher_name, weights_from_teacher
from core.students import student_rule
from core.teacher import Teacher

WIDE, NARROW = 60, 40  # of the tiny teacher's innermost stage, and of the one before it


@pytest.mark.parametrize("preset", ["b-base", "b-small", "b-tiny"])
def test_every_tensor_comes_from_the_teacher(teacher: Teacher, preset: str) -> None:
    config = derive_student(teacher.info.unet_config, preset)
    student = build_student(config, student_rule(preset), teacher.unet, seed=0)
    weights = weights_from_teacher(student, teacher.unet)
    assert set(weights) == set(student.state_dict())
    theirs = teacher.unet.state_dict()
    removed = 1 if preset == "b-tiny" else 0
    for name, weight in student.state_dict().items():
        expected = theirs[teacher_name(name, removed)]
        if expected.shape == weight.shape:
            assert torch.equal(weight, expected), name
        else:
            assert name.startswith("up_blocks.0.resnets.0."), name


@pytest.mark.parametrize(
    ("ours", "removed", "theirs"),
    [
        ("conv_in.weight", 1, "conv_in.weight"),
        ("mid_block.resnets.1.conv1.bias", 0, "mid_block.resnets.1.conv1.bias"),
        ("down_blocks.2.resnets.0.conv1.weight", 1, "down_blocks.2.resnets.0.conv1.weight"),
        ("up_blocks.1.resnets.0.conv1.weight", 0, "up_blocks.1.resnets.0.conv1.weight"),
        ("up_blocks.1.resnets.1.conv1.weight", 0, "up_blocks.1.resnets.2.conv1.weight"),
        ("up_blocks.1.attentions.1.proj_in.weight", 0, "up_blocks.1.attentions.2.proj_in.weight"),
        ("up_blocks.0.attentions.1.proj_in.weight", 1, "up_blocks.1.attentions.2.proj_in.weight"),
        ("up_blocks.0.upsamplers.0.conv.weight", 1, "up_blocks.1.upsamplers.0.conv.weight"),
    ],
)
def test_the_map_of_names(ours: str, removed: int, theirs: str) -> None:
    assert teacher_name(ours, removed) == theirs


def test_tiny_keeps_the_first_channels_and_the_skip_connections(teacher: Teacher) -> None:
    config = derive_student(teacher.info.unet_config, "b-tiny")
    student = build_student(config, student_rule("b-tiny"), teacher.unet, seed=0)
    ours = student.up_blocks[0].resnets[0]
    theirs = teacher.unet.up_blocks[1].resnets[0]
    assert torch.equal(ours.conv1.weight[:, :NARROW], theirs.conv1.weight[:, :NARROW])
    assert torch.equal(ours.conv1.weight[:, NARROW:], theirs.conv1.weight[:, WIDE:])
    assert torch.equal(ours.norm1.weight[NARROW:], theirs.norm1.weight[WIDE:])


def test_no_tensor_of_sd14_has_another_shape(sd14_config: dict) -> None:
    with torch.device("meta"):
        teacher = UNet2DConditionModel.from_config(sd14_config)
        for preset in ("b-base", "b-small", "b-tiny"):
            student = UNet2DConditionModel.from_config(derive_student(sd14_config, preset))
            weights = weights_from_teacher(student, teacher)
            assert {name: tensor.shape for name, tensor in student.state_dict().items()} == {
                name: tensor.shape for name, tensor in weights.items()
            }


def test_width_students_can_start_at_random_by_seed(teacher: Teacher) -> None:
    student = WidthStudent(width=0.6, initialisation="random")
    config, rule = derive_student(teacher.info.unet_config, student), student_rule(student)
    before = torch.get_rng_state()
    first, same, other = (build_student(config, rule, teacher.unet, seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first.conv_in.weight, same.conv_in.weight)
    assert not torch.equal(first.conv_in.weight, other.conv_in.weight)


def test_width_students_start_as_slices_whatever_the_seed(teacher: Teacher) -> None:
    config, rule = derive_student(teacher.info.unet_config, "c-tiny"), student_rule("c-tiny")
    first, other = (build_student(config, rule, teacher.unet, seed) for seed in (1, 2))
    assert all(torch.equal(weight, other.state_dict()[name]) for name, weight in first.state_dict().items())
    assert {tuple(row) for row in first.conv_in.weight.flatten(1).tolist()} <= {
        tuple(row) for row in teacher.unet.conv_in.weight.flatten(1).tolist()
    }


def test_koala_keeps_the_first_transformer_layers(sdxl_config: dict) -> None:
    with torch.device("meta"):
        teacher = UNet2DConditionModel.from_config(sdxl_config)
        student = UNet2DConditionModel.from_config(derive_student(sdxl_config, "koala-700m"))
    weights = weights_from_teacher(student, teacher)
    assert {name: tensor.shape for name, tensor in student.state_dict().items()} == {
        name: tensor.shape for name, tensor in weights.items()
    }
    theirs = "up_blocks.0.attentions.2.transformer_blocks.4.attn1.to_q.weight"
    assert teacher_name(theirs.replace("attentions.2", "attentions.1"), 0) == theirs
