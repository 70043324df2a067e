"""The training loop: batches, micro-batches, averaging, schedules, checkpoints, divergence."""

import json
import math
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel

from core.batches import Batch, BatchSource
from core.captions import CaptionSet, prepare_captions
from core.checkpoints import load_checkpoint, newest_checkpoint, save_checkpoint
from core.embeddings import CaptionEmbeddings, captions_to_keep
from core.errors import DivergedError
from core.events import EventWriter
from core.latents import LatentSet
from core.loop import TrainingState, frozen_copy, train, train_step
from core.optimisation import build_optimiser, choose_precision, learning_rate, update_average
from core.spec import DistillationSpec, MethodSpec, TrainingSpec, derive_student
from core.stopping import Stopped, StopRequest
from core.student_weights import build_student
from core.students import student_rule
from core.taps import tap_pair
from core.teacher import Teacher

N = 5


@pytest.fixture
def captions(tmp_path: Path) -> CaptionSet:
    spec = {
        "teacher": "t",
        "captions": {"kind": "inline", "texts": [f"cat {number}" for number in range(12)]},
        "drawn": {"texts": [f"cat {number}" for number in range(N)]},
    }
    return prepare_captions(DistillationSpec.model_validate(spec), tmp_path / "captions", [])


@pytest.fixture
def batches(teacher: Teacher, captions: CaptionSet) -> BatchSource:
    latents = torch.randn(N, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    return BatchSource(
        latents=LatentSet([latents[:3], latents[3:]], 3, torch.from_numpy(captions.drawn)),
        embeddings=CaptionEmbeddings(teacher, captions, captions.drawn),
        caption_count=len(captions),
        method=MethodSpec(),
        timesteps=1_000,
        seed=3,
        device=torch.device("cpu"),
    )


@pytest.fixture
def events(tmp_path: Path) -> Iterator[EventWriter]:
    with closing(EventWriter(tmp_path / "events.jsonl")) as writer:
        yield writer


def make_student(teacher: Teacher) -> UNet2DConditionModel:
    config = derive_student(teacher.info.unet_config, "b-tiny")
    return build_student(config, student_rule("b-tiny"), teacher.unet, seed=0)


def make_state(teacher: Teacher, training: TrainingSpec) -> tuple[TrainingState, torch.nn.Module]:
    tapped_teacher, student = tap_pair(teacher.unet, make_student(teacher), seed=0)
    optimiser = build_optimiser(student.parameters(), training)
    return TrainingState(student, frozen_copy(student.unet), optimiser), tapped_teacher


def spec_of(**training: object) -> DistillationSpec:
    return DistillationSpec.model_validate({"teacher": "t", "training": training})


def test_every_picture_is_seen_equally_often(batches: BatchSource) -> None:
    seen = torch.cat([batches._pictures(start, 4) for start in range(0, 4 * N, 4)])
    assert torch.bincount(seen).tolist() == [4] * N
    for start in range(0, 4 * N, N):
        assert sorted(seen[start : start + N].tolist()) == list(range(N))


def test_a_batch_follows_from_the_samples_seen_alone(batches: BatchSource) -> None:
    first, _, again = (batches.batch(seen, 4) for seen in (8, 12, 8))
    for ours, theirs in zip(vars(first).values(), vars(again).values(), strict=True):
        assert torch.equal(ours, theirs)
    assert not torch.equal(first.noise_BCHW, batches.batch(12, 4).noise_BCHW)


def test_a_batch_larger_than_the_set_takes_pictures_again(batches: BatchSource) -> None:
    assert torch.bincount(batches._pictures(0, 3 * N)).tolist() == [3] * N


def test_kept_and_fresh_embeddings_are_the_same(teacher: Teacher, captions: CaptionSet) -> None:
    everything = CaptionEmbeddings(teacher, captions, np.arange(len(captions)))
    drawn = CaptionEmbeddings(teacher, captions, captions.drawn)
    chosen = torch.tensor([0, 11, 3, len(captions), 11])
    expected = teacher.encode(captions.texts(chosen.tolist()))
    torch.testing.assert_close(everything(chosen), expected)
    torch.testing.assert_close(drawn(chosen), expected)


def test_embeddings_are_kept_where_that_pays_and_fits(captions: CaptionSet) -> None:
    small, huge = 1_000, 1 << 29
    assert len(captions_to_keep(captions, small, replacements=100)) == len(captions)
    assert captions_to_keep(captions, small, replacements=3).tolist() == captions.drawn.tolist()
    assert len(captions_to_keep(captions, huge, replacements=100)) == 0


def test_micro_batches_make_the_step_of_the_whole_batch(teacher: Teacher, batches: BatchSource) -> None:
    results = []
    for micro_batch_size in (None, 2):
        training = TrainingSpec(batch_size=4, micro_batch_size=micro_batch_size, learning_rate=1e-3)
        state, tapped_teacher = make_state(teacher, training)
        metrics = train_step(
            state,
            tapped_teacher,
            batches.batch(0, 4),
            teacher.noise_schedule(),
            training,
            MethodSpec(),
            torch.float32,
        )
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
    state, tapped_teacher = make_state(teacher, training)
    handle = tapped_teacher.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    train_step(
        state,
        tapped_teacher,
        batch,
        teacher.noise_schedule(),
        training,
        MethodSpec(),
        torch.float32,
    )
    handle.remove()
    torch.testing.assert_close(seen[0], expected)


def test_the_student_learns(teacher: Teacher, batches: BatchSource) -> None:
    training = TrainingSpec(batch_size=8, learning_rate=2e-3)
    state, tapped_teacher = make_state(teacher, training)
    losses = [
        train_step(
            state,
            tapped_teacher,
            batches.batch(0, 8),
            teacher.noise_schedule(),
            training,
            MethodSpec(),
            torch.float32,
        )[0].item()
        for _ in range(15)
    ]
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

    def step(state: TrainingState, tapped_teacher: torch.nn.Module) -> None:
        batch: Batch = batches.batch(state.step * 4, 4)
        train_step(
            state,
            tapped_teacher,
            batch,
            teacher.noise_schedule(),
            training,
            MethodSpec(),
            torch.float32,
        )

    state, tapped_teacher = make_state(teacher, training)
    step(state, tapped_teacher)
    checkpoint = save_checkpoint(tmp_path, state.step, state.student, state.average, state.optimiser)
    step(state, tapped_teacher)
    restored, tapped_teacher = make_state(teacher, training)
    restored.step = load_checkpoint(checkpoint, restored.student, restored.average, restored.optimiser)
    step(restored, tapped_teacher)
    for ours, theirs in (
        (restored.student.state_dict(), state.student.state_dict()),
        (restored.average.state_dict(), state.average.state_dict()),
    ):
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_a_torn_checkpoint_is_passed_over_and_two_are_kept(teacher: Teacher, tmp_path: Path) -> None:
    state, _ = make_state(teacher, TrainingSpec())
    for step in (1, 2, 3):
        save_checkpoint(tmp_path, step, state.student, state.average, state.optimiser)
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


def test_precision_follows_the_device_unless_specified() -> None:
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    assert choose_precision(TrainingSpec(), cpu) == torch.float32
    assert choose_precision(TrainingSpec(), cuda) == torch.bfloat16
    assert choose_precision(TrainingSpec(precision="bfloat16"), cpu) == torch.bfloat16


def test_bfloat16_trains_on_a_cpu_too(teacher: Teacher, batches: BatchSource) -> None:
    training = TrainingSpec(batch_size=4)
    state, tapped_teacher = make_state(teacher, training)
    metrics = train_step(
        state,
        tapped_teacher,
        batches.batch(0, 4),
        teacher.noise_schedule(),
        training,
        MethodSpec(),
        torch.bfloat16,
    )
    assert metrics.isfinite().all()
    assert all(parameter.dtype == torch.float32 for parameter in state.student.parameters())
