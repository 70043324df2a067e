"""The training loop: batches, micro-batches, averaging, schedules, checkpoints, divergence."""

import gc
import json
import math
import shutil
import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel

from core.artist import Artist
from core.batches import Batch, BatchSource
from core.captions import CaptionSet
from core.checkpoints import Origin, newest_checkpoint, save_checkpoint
from core.divergence import DivergenceGuard
from core.embeddings import CaptionEmbeddings, captions_to_keep
from core.errors import DivergedError
from core.events import EventWriter
from core.loop import frozen_copy, train
from core.noise_matching import NoiseMatching
from core.noise_process import noise_process
from core.optimisation import (
    build_optimiser,
    choose_precision,
    emulates_bfloat16,
    learning_rate,
    update_average,
)
from core.spec import (
    DistillationSpec,
    FeatureMatchingSpec,
    MethodSpec,
    RandomConditioningSpec,
    TrainingSpec,
    derive_student,
)
from core.stopping import Stopped, StopRequest
from core.student_weights import build_student
from core.students import student_rule
from core.taps import tap_pair
from core.teacher import Teacher
from core.training_step import Objective, TrainingState, train_step

N = 5  # pictures of `batches`
ORIGIN = Origin(captions="a" * 64, teacher="b" * 64)


def make_student(teacher: Teacher) -> UNet2DConditionModel:
    config = derive_student(teacher.info.unet_config, "b-tiny")
    return build_student(config, student_rule("b-tiny"), teacher.unet, seed=0)


def make_state(
    teacher: Teacher, training: TrainingSpec, precision: torch.dtype = torch.float32
) -> tuple[TrainingState, NoiseMatching]:
    """The state before the first step of a training with the default method, and its objective."""
    tapped_teacher, student = tap_pair(teacher.unet, make_student(teacher), FeatureMatchingSpec(), seed=0)
    process = noise_process(teacher.noise_schedule(), teacher.scheduler_config)
    objective = NoiseMatching(tapped_teacher, process, MethodSpec(), stride=50, precision=precision)
    optimiser = build_optimiser(student.parameters(), training)
    return TrainingState(student, frozen_copy(student.unet), optimiser), objective


def step_once(
    state: TrainingState, objective: Objective, batch: Batch, training: TrainingSpec
) -> dict[str, torch.Tensor]:
    return train_step(state, objective, batch, training, state.step)


def spec_of(**training: object) -> DistillationSpec:
    return DistillationSpec.model_validate({"teacher": "t", "training": training})


def tensors_of(batch: Batch) -> list[torch.Tensor]:
    conditions = [batch.conditions.embeddings_BLD, batch.blank.embeddings_BLD]
    return [batch.latents_BCHW, batch.noise_BCHW, batch.timestep_B, batch.matches_B, *conditions]


def test_every_picture_is_seen_equally_often(batches: BatchSource) -> None:
    seen = torch.cat([batches._pictures(start, 4) for start in range(0, 4 * N, 4)])
    assert torch.bincount(seen).tolist() == [4] * N
    for start in range(0, 4 * N, N):
        assert sorted(seen[start : start + N].tolist()) == list(range(N))


def test_a_batch_follows_from_the_samples_seen_alone(batches: BatchSource) -> None:
    first, _, again = (batches.batch(seen, 4) for seen in (8, 12, 8))
    for ours, theirs in zip(tensors_of(first), tensors_of(again), strict=True):
        assert torch.equal(ours, theirs)
    assert not torch.equal(first.noise_BCHW, batches.batch(12, 4).noise_BCHW)


def test_a_batch_larger_than_the_set_takes_pictures_again(batches: BatchSource) -> None:
    assert torch.bincount(batches._pictures(0, 3 * N)).tolist() == [3] * N


def test_a_batch_chooses_among_the_given_timesteps_alone(batches: BatchSource) -> None:
    timestep_K = torch.tensor([999, 499])
    batch = replace(batches, timestep_K=timestep_K).batch(0, 200)
    assert batch.timestep_B.unique().tolist() == [499, 999]


def test_a_caption_matches_its_own_picture_and_the_blank_one_any(
    batches: BatchSource, captions: CaptionSet
) -> None:
    """The conditions themselves say which caption came out."""
    method = MethodSpec(random_conditioning=RandomConditioningSpec(schedule="constant"))
    batch = replace(batches, method=method).batch(0, 200)
    own_B = batches.latents.caption_N[batches._pictures(0, 200)]
    blank = torch.full_like(own_B, len(captions))
    expected = torch.zeros(200, dtype=torch.bool)
    for caption_B in (own_B, blank):
        suiting = batches.embeddings(caption_B).embeddings_BLD
        expected |= (batch.conditions.embeddings_BLD == suiting).flatten(1).all(dim=1)
    assert torch.equal(batch.matches_B, expected)
    assert 0.4 < batch.matches_B.float().mean() < 0.8


def test_kept_and_fresh_embeddings_are_the_same(teacher: Teacher, captions: CaptionSet) -> None:
    everything = CaptionEmbeddings(teacher, captions, np.arange(len(captions)))
    drawn = CaptionEmbeddings(teacher, captions, captions.drawn)
    chosen = torch.tensor([0, 11, 3, len(captions), 11])
    expected = teacher.encode(captions.texts(chosen.tolist()))
    for embeddings in (everything, drawn):
        torch.testing.assert_close(embeddings(chosen).embeddings_BLD, expected.embeddings_BLD)


def test_embeddings_are_kept_where_that_pays_and_fits(captions: CaptionSet) -> None:
    small, huge = 1_000, 1 << 29
    assert len(captions_to_keep(captions, small, replacements=100)) == len(captions)
    assert captions_to_keep(captions, small, replacements=3).tolist() == captions.drawn.tolist()
    assert len(captions_to_keep(captions, huge, replacements=100)) == 0


def test_micro_batches_make_the_step_of_the_whole_batch(teacher: Teacher, batches: BatchSource) -> None:
    results = []
    for micro_batch_size in (None, 2):
        training = TrainingSpec(batch_size=4, micro_batch_size=micro_batch_size, learning_rate=1e-3)
        state, objective = make_state(teacher, training)
        metrics = step_once(state, objective, batches.batch(0, 4), training)
        results.append(metrics)
    torch.testing.assert_close(results[0], results[1], rtol=1e-4, atol=1e-6)


def test_a_step_on_noise_alone_sees_what_the_scheduler_would_make(
    teacher: Teacher, batches: BatchSource
) -> None:
    """The noisy latents are those of diffusers' own forward process."""
    from diffusers import DDPMScheduler

    batch = batches.batch(0, 4)
    scheduler = DDPMScheduler.from_config(teacher.scheduler_config)
    expected = scheduler.add_noise(batch.latents_BCHW, batch.noise_BCHW, batch.timestep_B)
    seen = []
    training = TrainingSpec(batch_size=4)
    state, objective = make_state(teacher, training)
    handle = objective.teacher.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    step_once(state, objective, batch, training)
    handle.remove()
    torch.testing.assert_close(seen[0], expected)


def test_a_training_lets_go_of_its_student(
    teacher: Teacher, batches: BatchSource, events: EventWriter, tmp_path: Path
) -> None:
    student = make_student(teacher)
    trained = weakref.ref(student)
    gc.disable()  # nothing forces a collection between the training and what follows it
    try:
        spec = spec_of(steps=1, batch_size=4)
        train(teacher, student, batches, spec, tmp_path, lambda *_: None, events, StopRequest())
        del student
        assert trained() is None
    finally:
        gc.enable()


def test_the_student_learns(teacher: Teacher, batches: BatchSource) -> None:
    training = TrainingSpec(batch_size=8, learning_rate=2e-3)
    state, objective = make_state(teacher, training)
    losses = [step_once(state, objective, batches.batch(0, 8), training)["loss"].item() for _ in range(15)]
    assert losses[-1] < 0.6 * losses[0]


def test_the_average_follows_its_formula() -> None:
    model, average = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    average.load_state_dict(model.state_dict())
    expected = model.weight.detach().clone()
    for step in range(1, 30):
        with torch.no_grad():
            model.weight += 1
        update_average(average, model, decay=0.6, step=step)
        decay = min(0.6, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * model.weight.detach()
    torch.testing.assert_close(average.weight.detach(), expected)


@pytest.mark.parametrize(
    ("schedule", "step", "expected"),
    [
        ("constant", 0, 1 / 11),
        ("constant", 9, 10 / 11),
        ("constant", 50, 1.0),
        ("cosine", 10, 1.0),
        ("cosine", 60, 0.5),
        ("cosine", 109, 0.5 * (1 + math.cos(math.pi * 0.99))),
    ],
)
def test_learning_rates(schedule: str, step: int, expected: float) -> None:
    training = TrainingSpec(
        steps=110, warmup_steps=10, learning_rate=1, learning_rate_schedule=schedule, batch_size=1
    )
    assert learning_rate(training, step) == pytest.approx(expected)


def test_a_checkpoint_restores_everything(teacher: Teacher, batches: BatchSource, tmp_path: Path) -> None:
    training = TrainingSpec(batch_size=4, learning_rate=1e-3)

    def step(state: TrainingState, objective: Objective) -> None:
        step_once(state, objective, batches.batch(state.step * 4, 4), training)

    state, objective = make_state(teacher, training)
    step(state, objective)
    guard = DivergenceGuard()
    checkpoint = save_checkpoint(tmp_path, state.step, state.modules, state.optimiser, guard, {}, ORIGIN)
    step(state, objective)
    restored, objective = make_state(teacher, training)
    restored.load(checkpoint)
    assert restored.step == 1
    step(restored, objective)
    for ours, theirs in (
        (restored.student.state_dict(), state.student.state_dict()),
        (restored.average.state_dict(), state.average.state_dict()),
    ):
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_a_torn_checkpoint_is_passed_over_and_two_are_kept(teacher: Teacher, tmp_path: Path) -> None:
    state, _ = make_state(teacher, TrainingSpec())
    for step in (1, 2, 3):
        save_checkpoint(tmp_path, step, state.modules, state.optimiser, DivergenceGuard(), {}, ORIGIN)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000002", "step-00000003"]
    assert newest_checkpoint(tmp_path) == tmp_path / "step-00000003"
    with (tmp_path / "step-00000003" / "model.safetensors").open("r+b") as file:
        file.truncate(1_000)
    assert newest_checkpoint(tmp_path) == tmp_path / "step-00000002"
    (tmp_path / "step-00000002" / "manifest.json").write_text("{")
    assert newest_checkpoint(tmp_path) is None


def test_a_loss_that_is_not_finite_ends_the_training_without_a_checkpoint(
    teacher: Teacher, batches: BatchSource, events: EventWriter, tmp_path: Path
) -> None:
    batches.latents.shards[0].fill_(math.nan)
    with pytest.raises(DivergedError) as caught:
        train(
            teacher,
            make_student(teacher),
            batches,
            spec_of(steps=9, batch_size=N, log_every=5, checkpoint_every=2),
            tmp_path / "checkpoints",
            lambda average, step: None,
            events,
            StopRequest(),
        )
    assert caught.value.reason == "diverged"
    assert newest_checkpoint(tmp_path / "checkpoints") is None


def test_a_stop_finishes_the_step_and_leaves_a_checkpoint(
    teacher: Teacher, batches: BatchSource, events: EventWriter, tmp_path: Path
) -> None:
    stop = StopRequest()
    stop.requested = True
    with pytest.raises(Stopped):
        train(
            teacher,
            make_student(teacher),
            batches,
            spec_of(steps=9, batch_size=N),
            tmp_path / "checkpoints",
            lambda average, step: None,
            events,
            stop,
        )
    assert newest_checkpoint(tmp_path / "checkpoints") == tmp_path / "checkpoints" / "step-00000001"
    written = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    assert [event["type"] for event in written] == ["progress", "metrics", "checkpoint"]


def test_what_a_training_is_asked_for_changes_nothing_of_its_steps(
    teacher: Teacher, batches: BatchSource, tmp_path: Path
) -> None:
    """An extra checkpoint and extra pictures; and a run that goes on from that very checkpoint."""
    spec = spec_of(steps=4, batch_size=N, warmup_steps=0, learning_rate=1e-3)
    drawing = spec.evaluation.model_copy(update={"steps": 2})
    drawn: dict[str, list[int]] = {}

    def run(name: str) -> dict[str, torch.Tensor]:
        def draw(average: UNet2DConditionModel, step: int) -> None:
            Artist(teacher, average, drawing).draw(["cat"], [7])
            drawn.setdefault(name, []).append(step)

        events = EventWriter(tmp_path / name / "events.jsonl")
        folder = tmp_path / name / "checkpoints"
        average = train(teacher, make_student(teacher), batches, spec, folder, draw, events, StopRequest())
        events.close()
        return average.state_dict()

    undisturbed = run("undisturbed")
    for request in ("checkpoint", "sample"):
        asking = tmp_path / "asked" / "requests" / request
        asking.parent.mkdir(parents=True, exist_ok=True)
        asking.touch()
    asked = run("asked")
    assert list((tmp_path / "asked" / "requests").iterdir()) == []
    extra = tmp_path / "asked" / "checkpoints" / "step-00000001"
    shutil.copytree(extra, tmp_path / "resumed" / "checkpoints" / extra.name)
    resumed = run("resumed")
    assert drawn == {"undisturbed": [4], "asked": [1, 4], "resumed": [4]}
    for weights in (asked, resumed):
        assert all(torch.equal(weights[name], undisturbed[name]) for name in undisturbed)


@pytest.mark.parametrize("micro_batch_size", [None, 2])
def test_gradient_checkpointing_changes_nothing_of_what_is_learnt(
    teacher: Teacher, batches: BatchSource, tmp_path: Path, micro_batch_size: int | None
) -> None:
    learnt = []
    for checkpointing in (False, True):
        spec = spec_of(
            steps=2, batch_size=4, micro_batch_size=micro_batch_size, gradient_checkpointing=checkpointing
        )
        spec = spec.model_copy(
            update={
                "method": MethodSpec(features=FeatureMatchingSpec(direction_weight=1, cross_attention=True))
            }
        )
        student, folder = make_student(teacher), tmp_path / str(checkpointing)
        events = EventWriter(folder / "events.jsonl")
        average = train(
            teacher, student, batches, spec, folder / "checkpoints", lambda *_: None, events, StopRequest()
        )
        events.close()
        assert student.up_blocks[-1].gradient_checkpointing is checkpointing
        learnt.append(average.state_dict())
    assert all(torch.equal(learnt[0][name], learnt[1][name]) for name in learnt[0])


@pytest.mark.parametrize(("has_bfloat16", "chosen"), [(True, torch.bfloat16), (False, torch.float32)])
def test_precision_follows_the_device_unless_specified(
    has_bfloat16: bool, chosen: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    def is_supported(*, including_emulation: bool) -> bool:
        return including_emulation or has_bfloat16

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", is_supported)
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    assert choose_precision(TrainingSpec(), cpu) == torch.float32
    assert choose_precision(TrainingSpec(), cuda) == chosen
    assert emulates_bfloat16(cuda) is not has_bfloat16
    assert choose_precision(TrainingSpec(precision="bfloat16"), cuda) == torch.bfloat16
    assert choose_precision(TrainingSpec(precision="bfloat16"), cpu) == torch.bfloat16


@pytest.mark.parametrize(
    ("abilities", "emulates"),
    [({"avx2": True, "avx512_bf16": False}, True), ({"avx512_bf16": True}, False), ({"bf16": True}, False)],
    ids=["AVX2", "AVX-512", "ARM"],
)
def test_a_processor_says_whether_it_computes_in_bfloat16(
    abilities: dict[str, bool], emulates: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: abilities)
    assert emulates_bfloat16(torch.device("cpu")) is emulates


def test_bfloat16_trains_on_a_cpu_too(teacher: Teacher, batches: BatchSource) -> None:
    training = TrainingSpec(batch_size=4)
    state, objective = make_state(teacher, training, torch.bfloat16)
    metrics = step_once(state, objective, batches.batch(0, 4), training)
    assert all(value.isfinite() for value in metrics.values())
    assert all(parameter.dtype == torch.float32 for parameter in state.student.parameters())
