"""Every tap fires and carries gradient, for every kind of student."""

import pytest
import torch
from torch import nn

from core.losses import distillation_loss
from core.spec import MethodSpec, WidthStudent, derive_student
from core.student_weights import build_student
from core.students import StudentPreset, student_rule
from core.taps import feature_pairs, tap_pair
from core.teacher import Teacher

STUDENTS = ["b-base", "b-small", "b-tiny", "c-base", "c-tiny", WidthStudent(width=0.4)]
PAIRS = {"b-tiny": 6}


def make_student(teacher: Teacher, student: StudentPreset | WidthStudent) -> nn.Module:
    config = derive_student(teacher.info.unet_config, student)
    return build_student(config, student_rule(student), teacher.unet, seed=0)


@pytest.mark.parametrize("student", STUDENTS, ids=str)
def test_every_tap_fires_and_carries_gradient(
    teacher: Teacher, student: StudentPreset | WidthStudent
) -> None:
    tapped_teacher, tapped_student = tap_pair(teacher.unet, make_student(teacher, student), seed=0)
    noisy, timestep = torch.randn(2, 4, 8, 8), torch.tensor([10, 900])
    prompts = teacher.encode(["small cat", ""])
    with torch.no_grad():
        target = tapped_teacher(noisy, timestep, prompts)
    prediction, features = tapped_student(noisy, timestep, prompts)
    assert len(features) == len(target[1]) == PAIRS.get(str(student), 8)
    for place, (ours, theirs) in enumerate(zip(features, target[1], strict=True)):
        assert ours.shape == theirs.shape
        assert not theirs.requires_grad
        (gradient,) = torch.autograd.grad(
            (ours - theirs).square().mean(),
            tapped_student.unet.conv_in.weight,
            retain_graph=True,
        )
        assert gradient.abs().sum() > 0, f"tap {place} carries no gradient"
    loss = distillation_loss((prediction, features), target, MethodSpec()).total
    loss.backward()
    assert all(parameter.grad is not None for parameter in tapped_student.parameters())


@pytest.mark.parametrize("student", STUDENTS, ids=str)
def test_projectors_are_trained_with_the_student_where_widths_differ(
    teacher: Teacher, student: StudentPreset | WidthStudent
) -> None:
    _, tapped = tap_pair(teacher.unet, make_student(teacher, student), seed=0)
    convolutions = [module for module in tapped.projectors if isinstance(module, nn.Conv2d)]
    assert len(convolutions) == (0 if str(student).startswith("b-") else 8)
    assert {id(p) for conv in convolutions for p in conv.parameters()} <= {id(p) for p in tapped.parameters()}


def test_projectors_follow_from_the_seed(teacher: Teacher) -> None:
    student = make_student(teacher, "c-base")
    first, same, other = (tap_pair(teacher.unet, student, seed)[1].projectors[0].weight for seed in (1, 1, 2))
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def test_tiny_pairs_its_decoder_with_the_teachers_shifted_by_one(teacher: Teacher) -> None:
    student = make_student(teacher, "b-tiny")
    pairs = feature_pairs(teacher.unet, student)
    assert [pair.student for pair in pairs[3:]] == list(student.up_blocks)
    assert [pair.teacher for pair in pairs[3:]] == list(teacher.unet.up_blocks[1:])
    assert pairs[2].teacher is teacher.unet.down_blocks[2].attentions[-1]
    assert pairs[2].student is student.down_blocks[2].attentions[-1]
