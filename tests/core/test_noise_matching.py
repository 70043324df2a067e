"""The training's objective: what is matched, at which states, at what cost."""

from dataclasses import replace

import pytest
import torch
from diffusers import DDIMScheduler
from torch import nn

from core.batches import Batch, BatchSource
from core.loop import frozen_copy, trainable_copy
from core.noise_matching import NoiseMatching
from core.noise_process import noise_process
from core.spec import FeatureMatchingSpec, MethodSpec, derive_student
from core.step_cost import training_sample_cost
from core.student_weights import build_student
from core.students import student_rule
from core.taps import TappedUNet, tap_pair
from core.teacher import Teacher

KINDS = ["epsilon", "v_prediction"]
STRIDE = 50
EVERYTHING = FeatureMatchingSpec(cross_attention=True, direction_weight=2)


def make_objective(
    teacher: Teacher, student: nn.Module, method: MethodSpec, kind: str = "epsilon"
) -> tuple[NoiseMatching, TappedUNet]:
    """An objective that taps a copy of the teacher, and the student tapped at the same points."""
    tapped_teacher, tapped_student = tap_pair(frozen_copy(teacher.unet), student, method.features, seed=0)
    process = noise_process(teacher.noise_schedule(), {"prediction_type": kind})
    return NoiseMatching(tapped_teacher, process, method, STRIDE, torch.float32), tapped_student


def make_student(teacher: Teacher) -> nn.Module:
    config = derive_student(teacher.info.unet_config, "b-base")
    return build_student(config, student_rule("b-base"), teacher.unet, seed=0)


def inputs_of(model: nn.Module) -> list[tuple[torch.Tensor, ...]]:
    """The list that a model's inputs will be appended to, call by call."""
    calls: list[tuple[torch.Tensor, ...]] = []
    model.register_forward_pre_hook(lambda module, inputs: calls.append(inputs[:2]))
    return calls


@pytest.fixture
def batch(batches: BatchSource) -> Batch:
    timestep_B = torch.tensor([999, 640, 70, 30])
    return replace(batches.batch(0, 4), timestep_B=timestep_B)


def test_one_state_is_the_published_loss(teacher: Teacher, batch: Batch) -> None:
    features = FeatureMatchingSpec(weight=0.5, normalisation="none")
    method = MethodSpec(output_weight=3, features=features)
    objective, student = make_objective(teacher, make_student(teacher), method)
    (terms,) = objective(student, batch)

    scheduler = DDIMScheduler.from_config(teacher.scheduler_config)
    noisy = scheduler.add_noise(batch.latents_BCHW, batch.noise_BCHW, batch.timestep_B)
    ours, our_features = student(noisy, batch.timestep_B, batch.conditions)
    theirs, their_features = objective.teacher(noisy, batch.timestep_B, batch.conditions)
    output = (ours - theirs).square().mean()
    feature = sum((a - b).square().mean() for a, b in zip(our_features, their_features, strict=True))
    torch.testing.assert_close(terms["loss_output"], output)
    torch.testing.assert_close(terms["loss_feature"], feature)
    torch.testing.assert_close(terms["loss"], 3 * output + 0.5 * feature)
    assert set(terms) == {"loss", "loss_output", "loss_feature"}


@pytest.mark.parametrize("kind", KINDS)
def test_the_states_are_those_of_the_students_own_sampler(teacher: Teacher, batch: Batch, kind: str) -> None:
    """Twenty sampler steps are 50 timesteps each; a walk ends at 0, and there it stays."""
    method = MethodSpec(noise_matching_steps=3, features=FeatureMatchingSpec(weight=0))
    objective, student = make_objective(teacher, make_student(teacher), method, kind)
    seen_by_student, seen_by_teacher = inputs_of(student), inputs_of(objective.teacher)
    parts = list(objective(student, batch))
    assert len(parts) == len(seen_by_student) == len(seen_by_teacher) == 3

    sampler = DDIMScheduler.from_config(teacher.scheduler_config, clip_sample=False, prediction_type=kind)
    sampler.set_timesteps(1_000 // STRIDE)
    noisy = sampler.add_noise(batch.latents_BCHW, batch.noise_BCHW, batch.timestep_B)
    walks = [[999, 949, 899], [640, 590, 540], [70, 20, 0], [30, 0, 0]]
    for visited in range(3):
        timestep_B = torch.tensor([walk[visited] for walk in walks])
        for seen, timesteps in (seen_by_student[visited], seen_by_teacher[visited]):
            torch.testing.assert_close(seen[:2], noisy[:2], rtol=1e-4, atol=1e-4)
            assert torch.equal(timesteps, timestep_B)
            assert not seen.requires_grad, "a gradient would flow along the walk"
        prediction, _ = student(seen_by_student[visited][0], timestep_B, batch.conditions)
        noisy = torch.cat(
            [
                sampler.step(prediction[row : row + 1], int(timestep_B[row]), noisy[row : row + 1])[0]
                for row in range(4)
            ]
        ).detach()
        noisy[2:] = seen_by_student[min(visited + 1, 2)][0][2:]  # steps that are cut short are checked below


def test_a_state_at_the_end_of_its_walk_stays(teacher: Teacher, batch: Batch) -> None:
    method = MethodSpec(noise_matching_steps=4, features=FeatureMatchingSpec(weight=0))
    objective, student = make_objective(teacher, make_student(teacher), method)
    seen = inputs_of(student)
    list(objective(student, batch))
    third, fourth = seen[2][0][3], seen[3][0][3]
    torch.testing.assert_close(third, fourth)
    assert not torch.allclose(seen[0][0][3], third)


@pytest.mark.parametrize("states", [1, 3])
def test_the_gradients_of_the_parts_add_up_to_that_of_the_mean_over_states(
    teacher: Teacher, batch: Batch, states: int
) -> None:
    method = MethodSpec(noise_matching_steps=states)
    objective, student = make_objective(teacher, make_student(teacher), method)
    seen = inputs_of(student)
    for terms in objective(student, batch):
        terms["loss"].backward()
    gradient = student.unet.conv_in.weight.grad.clone()

    student.zero_grad()
    one_state = replace(objective, method=MethodSpec())
    losses = []
    for noisy, timestep_B in list(seen):
        # With ε = x_t / s and x_0 = 0 the forward process makes just this state.
        _, s = objective.process._scales(timestep_B)
        state = replace(
            batch, latents_BCHW=torch.zeros_like(noisy), noise_BCHW=noisy / s, timestep_B=timestep_B
        )
        losses.extend(terms["loss"] for terms in one_state(student, state))
    torch.stack(losses).mean().backward()
    torch.testing.assert_close(student.unet.conv_in.weight.grad, gradient, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("direction_weight", [0, 1])
@pytest.mark.parametrize("states", [1, 2])
def test_passes_are_those_that_estimates_count(
    teacher: Teacher, batch: Batch, states: int, direction_weight: float
) -> None:
    method = MethodSpec(
        noise_matching_steps=states,
        task_weight=1,
        features=FeatureMatchingSpec(direction_weight=direction_weight),
    )
    objective, student = make_objective(teacher, make_student(teacher), method)
    ours, theirs = inputs_of(student.unet), inputs_of(objective.teacher.unet)
    list(objective(student, batch))
    cost = training_sample_cost(method)
    assert (len(theirs), len(ours)) == (cost.teacher, cost.student)


def test_a_copy_of_the_teacher_has_nothing_to_learn_from_it(teacher: Teacher, batch: Batch) -> None:
    method = MethodSpec(features=EVERYTHING, noise_matching_steps=2)
    objective, student = make_objective(teacher, trainable_copy(teacher.unet), method)
    for terms in objective(student, batch):
        assert set(terms) == {"loss", "loss_output", "loss_feature", "loss_direction"}
        assert all(term.item() < 1e-9 for term in terms.values())


def test_the_direction_reaches_what_reads_the_caption(teacher: Teacher, batch: Batch) -> None:
    method = MethodSpec(features=EVERYTHING)
    objective, student = make_objective(teacher, make_student(teacher), method)
    (terms,) = objective(student, batch)
    terms["loss_direction"].backward()
    cross_attention = student.unet.down_blocks[0].attentions[0].transformer_blocks[0].attn2
    assert cross_attention.to_k.weight.grad.abs().sum() > 0
    assert student.unet.conv_out.weight.grad is None


@pytest.mark.parametrize("kind", KINDS)
def test_the_task_is_the_true_noise_or_velocity_where_the_caption_is_the_pictures_own(
    teacher: Teacher, batch: Batch, kind: str
) -> None:
    method = MethodSpec(task_weight=4, features=FeatureMatchingSpec(weight=0), noise_matching_steps=2)
    objective, student = make_objective(teacher, make_student(teacher), method, kind)
    batch = replace(batch, matches_B=torch.tensor([True, True, False, True]))
    first, second = objective(student, batch)

    scheduler = DDIMScheduler.from_config(teacher.scheduler_config)
    arguments = (batch.latents_BCHW, batch.noise_BCHW, batch.timestep_B)
    noisy = scheduler.add_noise(*arguments)
    truth = batch.noise_BCHW if kind == "epsilon" else scheduler.get_velocity(*arguments)
    prediction, _ = student(noisy, batch.timestep_B, batch.conditions)
    error_B = (prediction - truth).square().mean(dim=(1, 2, 3))
    torch.testing.assert_close(first["loss_task"], error_B[[0, 1, 3]].sum() / 4)
    torch.testing.assert_close(first["loss"], first["loss_output"] + 4 * first["loss_task"])
    assert set(second) == {"loss", "loss_output"}, "the noise of a visited state is not known"
