"""Every tap fires and carries gradient, for every kind of student, at blocks and at cross-attentions."""

import pytest
import torch
from diffusers.models.attention_processor import Attention
from torch import nn

from core.spec import FeatureMatchingSpec, WidthStudent, derive_student
from core.student_weights import build_student, teacher_name
from core.students import StudentPreset, student_rule
from core.taps import FeaturePair, TappedUNet, block_pairs, cross_attention_pairs, tap_pair
from core.teacher import Teacher

STUDENTS = ["b-base", "b-small", "b-tiny", "c-base", "c-tiny", WidthStudent(width=0.4)]
BLOCKS = {"b-tiny": 6}
# The tiny teacher attends in three of its four stages: 2 + 2 + 2 layers down, 1 amid, 3 + 3 + 3 up.
CROSS_ATTENTIONS = {"b-base": 10, "b-small": 9, "b-tiny": 9}
EVERYWHERE = FeatureMatchingSpec(cross_attention=True)


def make_student(teacher: Teacher, student: StudentPreset | WidthStudent) -> nn.Module:
    config = derive_student(teacher.info.unet_config, student)
    return build_student(config, student_rule(student), teacher.unet, seed=0)


def name_of(point: nn.Module, model: nn.Module) -> str:
    return next(name for name, module in model.named_modules() if module is point)


def hooks_of(model: nn.Module) -> int:
    return sum(len(module._forward_hooks) for module in model.modules())


@pytest.mark.parametrize("student", STUDENTS, ids=str)
def test_every_tap_fires_and_carries_gradient(
    teacher: Teacher, student: StudentPreset | WidthStudent
) -> None:
    tapped_teacher, tapped_student = tap_pair(
        teacher.unet, make_student(teacher, student), EVERYWHERE, seed=0
    )
    noisy, timestep = torch.randn(2, 4, 8, 8), torch.tensor([10, 900])
    conditions = teacher.encode(["small cat", ""])
    with torch.no_grad():
        _, targets = tapped_teacher(noisy, timestep, conditions)
    prediction, features = tapped_student(noisy, timestep, conditions)
    tapped_teacher.untap()
    expected = BLOCKS.get(str(student), 8) + CROSS_ATTENTIONS.get(str(student), 16)
    assert len(features) == len(targets) == expected
    for place, (ours, theirs) in enumerate(zip(features, targets, strict=True)):
        assert ours.shape == theirs.shape
        assert not theirs.requires_grad
        (gradient,) = torch.autograd.grad(
            ours.square().mean(),  # the difference may be nought: a student's first layers are the teacher's
            tapped_student.unet.conv_in.weight,
            retain_graph=True,
        )
        assert gradient.abs().sum() > 0, f"tap {place} carries no gradient"
    (prediction.sum() + sum(feature.sum() for feature in features)).backward()
    assert all(parameter.grad is not None for parameter in tapped_student.parameters())


@pytest.mark.parametrize("student", ["b-base", "b-small", "b-tiny"])
def test_a_block_student_starts_with_the_cross_attentions_it_is_compared_with(
    teacher: Teacher, student: StudentPreset
) -> None:
    """The pairs follow the map by which the weights were taken, which is written down elsewhere."""
    model = make_student(teacher, student)
    removed = len(teacher.unet.up_blocks) - len(model.up_blocks)
    pairs = cross_attention_pairs(teacher.unet, model)
    for pair in pairs:
        ours = name_of(pair.student, model)
        assert teacher_name(f"{ours}.to_q.weight", removed) == (
            f"{name_of(pair.teacher, teacher.unet)}.to_q.weight"
        )
    attending = [module for name, module in model.named_modules() if name.endswith("attn2")]
    assert {id(pair.student) for pair in pairs} == set(map(id, attending))


@pytest.mark.parametrize("student", STUDENTS, ids=str)
def test_projectors_are_trained_with_the_student_where_widths_differ(
    teacher: Teacher, student: StudentPreset | WidthStudent
) -> None:
    tapped_teacher, tapped = tap_pair(teacher.unet, make_student(teacher, student), EVERYWHERE, seed=0)
    tapped_teacher.untap()
    kinds = [type(module) for module in tapped.projectors if not isinstance(module, nn.Identity)]
    assert kinds == ([] if str(student).startswith("b-") else [nn.Conv2d] * 8 + [nn.Linear] * 16)
    projected = {id(parameter) for module in tapped.projectors for parameter in module.parameters()}
    assert projected <= {id(parameter) for parameter in tapped.parameters()}


def test_projectors_follow_from_the_seed(teacher: Teacher) -> None:
    student = make_student(teacher, "c-base")

    def first_projector(seed: int) -> torch.Tensor:
        tapped_teacher, tapped = tap_pair(teacher.unet, student, FeatureMatchingSpec(), seed)
        tapped_teacher.untap()
        return tapped.projectors[0].weight

    assert torch.equal(first_projector(1), first_projector(1))
    assert not torch.equal(first_projector(1), first_projector(2))


def test_tiny_pairs_its_decoder_with_the_teachers_shifted_by_one(teacher: Teacher) -> None:
    student = make_student(teacher, "b-tiny")
    pairs = block_pairs(teacher.unet, student)
    assert [pair.student for pair in pairs[3:]] == list(student.up_blocks)
    assert [pair.teacher for pair in pairs[3:]] == list(teacher.unet.up_blocks[1:])
    assert pairs[2].teacher is teacher.unet.down_blocks[2].attentions[-1]
    assert pairs[2].student is student.down_blocks[2].attentions[-1]


def test_without_any_weight_nothing_is_tapped(teacher: Teacher) -> None:
    features = FeatureMatchingSpec(weight=0, cross_attention=True)
    student = make_student(teacher, "c-base")
    hooks = hooks_of(teacher.unet)
    tapped_teacher, tapped_student = tap_pair(teacher.unet, student, features, seed=0)
    assert hooks_of(teacher.unet) == hooks
    assert hooks_of(student) == 0
    assert {id(p) for p in tapped_student.parameters()} == {id(p) for p in student.parameters()}
    _, found = tapped_teacher(torch.randn(1, 4, 8, 8), torch.tensor([10]), teacher.encode([""]))
    assert found == []


def test_a_direction_alone_needs_the_taps(teacher: Teacher) -> None:
    features = FeatureMatchingSpec(weight=0, direction_weight=1)
    tapped_teacher, _ = tap_pair(teacher.unet, make_student(teacher, "b-base"), features, seed=0)
    tapped_teacher.untap()
    assert len(tapped_teacher.projectors) == 8


def test_untapped_the_model_is_as_it_was() -> None:
    layer = nn.Linear(2, 2)
    tapped = TappedUNet(layer, [layer])
    assert layer._forward_hooks
    tapped.untap()
    assert not layer._forward_hooks


@pytest.mark.parametrize("student", ["b-small", "c-tiny"])
def test_gradient_checkpointing_gives_the_same_features_and_gradients(
    teacher: Teacher, student: StudentPreset
) -> None:
    """Modules that are tapped run again in the backward pass, where nobody listens."""
    noisy, timestep = torch.randn(2, 4, 8, 8), torch.tensor([10, 900])
    conditions = teacher.encode(["small cat", ""])
    results = []
    for checkpointing in (False, True):
        tapped_teacher, tapped = tap_pair(teacher.unet, make_student(teacher, student), EVERYWHERE, seed=0)
        tapped_teacher.untap()
        if checkpointing:
            tapped.unet.enable_gradient_checkpointing()
        calls: list[nn.Module] = []
        block = tapped.unet.up_blocks[-1].resnets[0]
        block.register_forward_pre_hook(lambda module, _, calls=calls: calls.append(module))
        prediction, features = tapped(noisy, timestep, conditions)
        (prediction.square().mean() + sum(feature.square().mean() for feature in features)).backward()
        assert len(calls) == 1 + checkpointing
        assert tapped._features is None
        gradients = [parameter.grad for parameter in tapped.parameters()]
        results.append([prediction, *features, *gradients])
    assert len(results[0]) == len(results[1])
    assert all(torch.equal(*pair) for pair in zip(*results, strict=True))


def test_a_projector_fits_the_axes_of_its_point() -> None:
    attention = Attention(query_dim=6, heads=2, dim_head=3)
    tokens, maps = torch.randn(1, 5, 6), torch.randn(1, 6, 4, 4)
    assert FeaturePair(attention, attention, 8, 6).make_projector()(tokens).shape == (1, 5, 8)
    assert FeaturePair(nn.Identity(), nn.Identity(), 8, 6).make_projector()(maps).shape == (1, 8, 4, 4)
