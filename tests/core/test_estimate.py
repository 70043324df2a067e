"""Estimates: exact where they say so, and otherwise near what is measured on the same models."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel

from core.captions import prepare_captions
from core.checkpoints import Origin, save_checkpoint
from core.cost import random_conditions
from core.device_rate import DeviceRate
from core.estimate import estimate_job
from core.exported_size import safetensors_size
from core.few_step import begin_round
from core.loop import frozen_copy
from core.memory_use import computation_memory_bytes
from core.phase_times import phase_seconds
from core.probe import cached_rate, compare, job_probe
from core.spec import DistillationSpec, TrainingSpec, derive_student
from core.teacher import Teacher
from core.teacher_folder import TeacherInfo
from core.unet_layout import unet_layout
from core.unet_memory import checkpointed_bytes, saved_bytes

CPU = torch.device("cpu")
NO_FEATURES = {"features": {"weight": 0}}
RATE = DeviceRate(
    device="one", precision="float32", forward_flops=2e12, training_flops=1e12, process_bytes=10**9
)


@pytest.fixture
def sd14(teacher_info: TeacherInfo, sd14_config: dict[str, Any]) -> TeacherInfo:
    """A teacher of Stable Diffusion 1.4's U-Net; its other parts are the tiny teacher's."""
    return teacher_info.model_copy(update={"unet_config": sd14_config, "prompt_tokens": 77})


def training_only(make_spec: Callable[..., DistillationSpec], **changes: Any) -> DistillationSpec:
    training = {"steps": 10, "batch_size": 8, "sample_every": 100} | changes.pop("training", {})
    return make_spec(**{"training": training, **changes})


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_the_size_of_the_weights_is_exact(
    dtype: torch.dtype, teacher_info: TeacherInfo, tmp_path: Path
) -> None:
    config = derive_student(teacher_info.unet_config, "b-small")
    UNet2DConditionModel.from_config(config).to(dtype).save_pretrained(tmp_path)
    size = safetensors_size(unet_layout(config), "F32" if dtype == torch.float32 else "F16")
    assert size == (tmp_path / "diffusion_pytorch_model.safetensors").stat().st_size


def test_a_training_sample_costs_what_was_counted(
    sd14: TeacherInfo, make_spec: Callable[..., DistillationSpec]
) -> None:
    """Stable Diffusion 1.4 to b-base: 2,370 GFLOP a sample, teacher forward and student there and back."""
    estimate = estimate_job(sd14, training_only(make_spec, student="b-base"))
    assert estimate.flops["training"] / 80 == pytest.approx(2370e9, rel=1e-3)
    assert estimate.student_parameters == 579_384_964
    assert estimate.student_gmacs == pytest.approx(223.7, abs=0.05)
    assert estimate.seconds is None


def test_the_teacher_draws_as_many_pictures_as_there_are_captions_to_draw(
    sd14: TeacherInfo, make_spec: Callable[..., DistillationSpec]
) -> None:
    def drawn(caption_count: int | None = None, **changes: Any) -> int | None:
        return estimate_job(sd14, make_spec(**changes), caption_count=caption_count).drawn_pictures

    bundled = {"captions": {"kind": "bundled"}}
    inline = {"captions": {"kind": "inline", "texts": ["cat", "dog", "fish", "cat"]}}
    assert drawn(**bundled, drawn={"count": 50}) == 50
    assert drawn(20, **bundled, drawn={"count": 50}) == 20
    assert drawn(**bundled, drawn={"fraction": 0.5}) is None
    assert drawn(20, **bundled, drawn={"fraction": 0.5}) == 10
    assert drawn(**inline, drawn={"count": 50}) == 3
    assert drawn(**bundled, drawn={"texts": ["one", "two"]}) == 2


def test_only_splits_that_there_are_are_drawn_for_scores_and_evaluation(
    teacher_info: TeacherInfo, make_spec: Callable[..., DistillationSpec], tmp_path: Path
) -> None:
    """Counted as a set on disk has them: nothing is text only where all is drawn, nor drawn if held out."""
    inline = {"kind": "inline", "texts": ["cat", "dog", "fish", "cat"]}
    file = {"kind": "file", "path": str(tmp_path / "captions.txt")}
    (tmp_path / "captions.txt").write_text("cat\ndog\nfish\n")

    def drawn_and_pictures(count: int | None = None, **changes: Any) -> tuple[int | None, float]:
        spec = make_spec(**changes)
        estimate = estimate_job(teacher_info, spec, caption_count=count)
        theirs, ours = (
            2 * unet_layout(config, prompt_tokens=teacher_info.prompt_tokens).multiply_accumulates
            for config in (teacher_info.unet_config, derive_student(teacher_info.unet_config, "b-small"))
        )
        a_split = 4 * 2 * 2 * (2 * theirs + ours)  # pictures, steps, guidance; and who draws them
        return estimate.drawn_pictures, estimate.flops["evaluation"] / a_split

    for number, (changes, count) in enumerate(
        [
            ({"captions": inline, "drawn": {"count": 50}}, None),
            ({"captions": inline, "drawn": {"count": 2}}, None),
            ({"captions": inline, "drawn": {"count": 50, "hold_out": ["cat"]}}, None),
            ({"captions": inline, "drawn": {"fraction": 0.5, "hold_out": ["cat"]}}, None),
            ({"captions": inline, "drawn": {"fraction": 0.1, "hold_out": ["zebra"]}}, None),
            ({"captions": inline, "drawn": {"texts": ["one", "two"]}}, None),
            ({"captions": inline, "drawn": {"texts": ["fish", "cat", "dog"]}}, None),
            ({"captions": file, "drawn": {"count": 3}}, 3),
        ]
    ):
        splits = prepare_captions(make_spec(**changes), tmp_path / str(number), []).splits
        there = sum(map(bool, splits.values()))
        assert drawn_and_pictures(count, **changes) == (splits["drawn"], pytest.approx(there)), changes
    of_unknown_size = {"captions": file, "drawn": {"count": 50, "hold_out": ["cat"]}}
    assert drawn_and_pictures(**of_unknown_size) == (50, pytest.approx(3))


def test_checkpoints_of_a_transfer_hold_the_guide_too(
    teacher: Teacher, make_spec: Callable[..., DistillationSpec], tmp_path: Path
) -> None:
    """Three are on disk at most, each with what the round's student learns from."""
    few_step = {"steps": 2, "start_steps": 4, "training_steps": 5}
    student = UNet2DConditionModel.from_config(derive_student(teacher.info.unet_config, "b-small"))
    sizes = []
    for guide in (None, frozen_copy(student)):
        state = begin_round(student, guide, TrainingSpec(), first_step=0)
        for parameter in state.student.parameters():
            parameter.grad = torch.zeros_like(parameter)
        state.optimiser.step()
        checkpoint = save_checkpoint(
            tmp_path, 1, state.modules, state.optimiser, state.guard, {}, Origin("a", "b")
        )
        sizes.append(3 * sum(file.stat().st_size for file in checkpoint.iterdir()))
    for size, changes in zip(sizes, ({}, {"few_step": few_step}), strict=True):
        counted = estimate_job(teacher.info, make_spec(**changes)).checkpoint_bytes
        assert counted == pytest.approx(size, rel=0.05)


def test_more_visited_states_and_directions_multiply_the_passes(
    sd14: TeacherInfo, make_spec: Callable[..., DistillationSpec]
) -> None:
    plain = estimate_job(sd14, training_only(make_spec))
    method = {"noise_matching_steps": 3, "features": {"direction_weight": 1}}
    costly = estimate_job(sd14, training_only(make_spec, method=method))
    assert costly.flops["training"] == pytest.approx(6 * plain.flops["training"])


def test_time_is_operations_over_rates(sd14: TeacherInfo, make_spec: Callable[..., DistillationSpec]) -> None:
    """Of 2,370 GFLOP a sample the teacher's forward pass makes 803, and the trained passes the rest."""
    estimate = estimate_job(sd14, training_only(make_spec, student="b-base"), RATE)
    assert estimate.seconds is not None
    assert estimate.seconds["training"] == pytest.approx(80 * (0.803 / 2 + 1.567), rel=2e-3)
    # Six pictures of three PNDM steps with guidance, 803 GFLOP a pass.
    assert estimate.seconds["latents"] == pytest.approx(6 * 3 * 2 * 0.803 / 2, rel=1e-3)


def test_scores_on_the_way_take_the_students_pictures_and_the_teachers_once(
    sd14: TeacherInfo, make_spec: Callable[..., DistillationSpec]
) -> None:
    """Ten pictures a score of two sampler steps, with guidance while it trains and without it after that."""
    training = {"steps": 10, "batch_size": 8, "sample_every": 100}
    few_step = {"steps": 2, "start_steps": 4, "guidance_scale": 3, "training_steps": 5}
    drawing = {"samples": 4, "steps": 2, "guidance_scale": 2.0, "score_samples": 5}

    def flops(score_every: int) -> dict[str, float]:
        evaluation = drawing | {"score_every": score_every}
        return estimate_job(
            sd14, make_spec(training=training, few_step=few_step, evaluation=evaluation)
        ).flops

    theirs, ours = (
        2 * unet_layout(config, prompt_tokens=77).multiply_accumulates
        for config in (sd14.unet_config, derive_student(sd14.unet_config, "b-small"))
    )
    without, at_4, at_12 = flops(0), flops(4), flops(12)
    assert flops(21) == without
    assert at_4["training"] - without["training"] == pytest.approx(2 * 10 * 4 * ours + 2 * 10 * 4 * theirs)
    assert at_4["few_step"] - without["few_step"] == pytest.approx(3 * 10 * 2 * ours)
    assert at_12["few_step"] - without["few_step"] == pytest.approx(10 * 2 * ours + 2 * 10 * 4 * theirs)
    assert at_4["evaluation"] == without["evaluation"]


def test_memory_holds_the_teacher_and_the_student_six_times(
    sd14: TeacherInfo, teacher_info: TeacherInfo, make_spec: Callable[..., DistillationSpec]
) -> None:
    """Weights, average, two moments and gradients in float32, autocast's copies in half of it."""
    training = {"batch_size": 2, "micro_batch_size": 1}
    spec = training_only(make_spec, student="b-base", training=training, method=NO_FEATURES)
    saved = saved_bytes(unet_layout(derive_student(sd14.unet_config, "b-base")), compute_bytes=2)
    held = estimate_job(sd14, spec).training_memory_bytes - saved
    assert held == pytest.approx(4 * 859_520_964 + 22 * 579_384_964, rel=0.001)


def test_gradients_are_summed_over_micro_batches_and_over_the_parts_of_a_loss(
    sd14: TeacherInfo, make_spec: Callable[..., DistillationSpec]
) -> None:
    """From the second on they are there beside what forward passes save, which is more than they are."""

    def memory(method: dict[str, Any], **training: int) -> int:
        return estimate_job(
            sd14, training_only(make_spec, method=method, training=training)
        ).training_memory_bytes

    ours = unet_layout(derive_student(sd14.unet_config, "b-small"))
    plain = memory({}, batch_size=8)
    assert 8 * saved_bytes(ours, compute_bytes=2) > 4 * ours.parameters
    assert memory({"noise_matching_steps": 3}, batch_size=8) - plain == 4 * ours.parameters
    assert memory({}, batch_size=16, micro_batch_size=8) - plain == 4 * ours.parameters


def test_gradient_checkpointing_trades_memory_for_a_forward_pass(
    sd14: TeacherInfo, make_spec: Callable[..., DistillationSpec]
) -> None:
    kept, again = (
        estimate_job(sd14, training_only(make_spec, training={"gradient_checkpointing": checkpointing}))
        for checkpointing in (False, True)
    )
    ours = unet_layout(derive_student(sd14.unet_config, "b-small"))
    saved = 8 * saved_bytes(ours, compute_bytes=2)
    less = kept.training_memory_bytes - again.training_memory_bytes
    assert 0.6 * saved < less < saved
    samples = 10 * 8
    assert again.flops["training"] - kept.flops["training"] == samples * 2 * ours.multiply_accumulates


def test_a_transfer_holds_the_guide_and_the_students_of_before(
    sd14: TeacherInfo, make_spec: Callable[..., DistillationSpec]
) -> None:
    """How many there are `tests/core/test_few_step.py` counts."""
    few_step = {"steps": 2, "start_steps": 4, "training_steps": 5}
    direct, transferred = (
        estimate_job(sd14, training_only(make_spec, method=NO_FEATURES, **changes))
        for changes in ({}, {"few_step": few_step})
    )
    extra = transferred.training_memory_bytes - direct.training_memory_bytes
    assert extra == 3 * 4 * direct.student_parameters


def test_on_a_processor_the_process_and_the_weights_of_the_start_are_held_too(
    sd14: TeacherInfo, make_spec: Callable[..., DistillationSpec]
) -> None:
    spec = training_only(make_spec, student="b-base", training={"precision": "float32"})
    accelerator = RATE.model_copy(update={"process_bytes": 0})
    held, alone = (estimate_job(sd14, spec, rate).training_memory_bytes for rate in (RATE, accelerator))
    assert held - alone == 10**9 + 4 * 579_384_964


def narrowed(config: dict[str, Any], channels: list[int], groups: int = 8) -> dict[str, Any]:
    """A U-Net of the same blocks and heads, small enough to be run."""
    config = config | {"norm_num_groups": groups, "cross_attention_dim": 64, "sample_size": 32}
    if len(config["block_out_channels"]) == 3:
        config |= {"addition_time_embed_dim": 8, "projection_class_embeddings_input_dim": 64}
    return config | {"block_out_channels": channels[: len(config["block_out_channels"])]}


@pytest.mark.parametrize(
    ("family", "channels", "groups"),
    [("sd14_config", [8, 16, 32, 32], 8), ("sdxl_config", [10, 20, 40], 5)],
    ids=["sd14", "sdxl"],
)
def test_what_gradient_checkpointing_holds_is_counted_to_a_fifth(
    family: str, channels: list[int], groups: int, request: pytest.FixtureRequest
) -> None:
    """At the height of a whole pass; larger batches differ in what is held for their samples alone."""
    config = narrowed(request.getfixturevalue(family), channels, groups)
    unet = UNet2DConditionModel.from_config(config)

    unet.enable_gradient_checkpointing()

    def train(samples: int) -> None:
        conditions = random_conditions(config, 16, samples, CPU)
        noisy, timestep = torch.randn(samples, 4, 32, 32), torch.arange(samples)
        conditions.predict(unet, noisy, timestep).square().mean().backward()
        unet.zero_grad()

    few, more = (computation_memory_bytes(partial(train, samples), [unet], CPU) for samples in (8, 12))
    counted = checkpointed_bytes(unet_layout(config, prompt_tokens=16), 4)
    assert 4 * counted == pytest.approx(more - few, rel=0.2)


@pytest.mark.parametrize("family", ["sd14_config", "sdxl_config"])
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_what_forward_saves_is_counted_to_a_tenth(
    family: str, precision: torch.dtype, request: pytest.FixtureRequest
) -> None:
    config = narrowed(request.getfixturevalue(family), [40, 80, 160, 160])
    unet = UNet2DConditionModel.from_config(config)
    own = {parameter.data_ptr() for parameter in unet.parameters()}
    storages: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.data_ptr() not in own and tensor.ndim > 1 and not tensor.is_leaf:
            storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    conditions = random_conditions(config, 16, 2, CPU)
    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        torch.autocast("cpu", precision, enabled=precision != torch.float32),
    ):
        prediction = conditions.predict(unet, torch.randn(2, 4, 32, 32), torch.tensor([1, 2]))
    assert prediction.requires_grad
    layout = unet_layout(config, prompt_tokens=16)
    autocast = precision == torch.bfloat16
    counted = 2 * saved_bytes(layout, *((2, 2) if autocast else (4, 4)))
    counted += 2 * layout.parameters * autocast  # its copies of the weights
    assert counted == pytest.approx(sum(storages.values()), rel=0.1)


def test_counting_needs_no_torch() -> None:
    program = (
        "import sys\n"
        "import core.estimate\n"
        "assert not {'torch', 'numpy', 'diffusers', 'transformers'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=Path(__file__).parents[2])


def test_a_rate_is_measured_once_and_kept(
    teacher_info: TeacherInfo, make_spec: Callable[..., DistillationSpec], tmp_path: Path
) -> None:
    probe = replace(job_probe(teacher_info, make_spec(), CPU), seconds=0.01)
    rate = cached_rate(probe, tmp_path)
    assert rate.forward_flops > 0
    assert rate.training_flops > 0
    assert rate.process_bytes > 10**7
    (kept,) = (tmp_path / "rates").iterdir()
    kept.write_text(rate.model_copy(update={"forward_flops": 1.0}).model_dump_json())
    assert cached_rate(probe, tmp_path).forward_flops == 1
    other = replace(job_probe(teacher_info, make_spec(student="b-tiny"), CPU), seconds=0.01)
    assert cached_rate(other, tmp_path).forward_flops > 1


def test_an_estimate_is_held_against_what_a_run_measured(
    teacher_info: TeacherInfo, make_spec: Callable[..., DistillationSpec], tmp_path: Path
) -> None:
    estimate = estimate_job(teacher_info, make_spec(), RATE)
    assert estimate.seconds
    half = timedelta(seconds=estimate.seconds["training"] / 2)
    began = datetime(2026, 1, 1, tzinfo=UTC)
    memory = [{"process_memory_bytes": share * estimate.training_memory_bytes} for share in (0.5, 0.8)]
    events = [
        {"at": began, "type": "phase", "phase": "training"},
        *({"at": began, "type": "metrics", "values": values} for values in memory),
        {"at": began + half, "type": "phase", "phase": "export"},
    ]
    lines = [json.dumps(event | {"at": event["at"].isoformat()}) for event in events]
    (tmp_path / "events.jsonl").write_text("\n".join(lines))
    assert compare(estimate, tmp_path)["error"] == pytest.approx({"training": 1.0, "memory": 0.25}, rel=1e-2)


def test_phases_are_timed_by_the_record_without_the_pause_between_two_runs() -> None:
    def event(second: int, **fields: str) -> dict[str, str]:
        return {"at": f"2026-01-01T00:00:{second:02d}+00:00", "type": "progress", **fields}

    events = [
        event(0, type="phase", phase="captions"),
        event(1, type="phase", phase="training"),
        event(5),
        event(30, type="phase", phase="captions"),
        event(32, type="phase", phase="training"),
        event(42, type="phase", phase="export"),
        event(43, type="result"),
    ]
    assert phase_seconds(events) == {"captions": 3, "training": 14, "export": 1}
