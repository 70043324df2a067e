"""Few-step transfer: what its rounds aim at, what they hand on, and that an interrupted one ends the same."""

import gc
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from safetensors.torch import load_file
from torch import nn

from core import few_step
from core.batches import Batch, BatchSource
from core.checkpoints import checkpoint_name
from core.conditions import Conditions
from core.events import EventWriter
from core.few_step import GuidanceFolding, StepHalving, begin_round, sampler_timesteps, transfer
from core.few_step_scheduler import write_few_step_scheduler
from core.loop import Course, train
from core.noise_process import NoiseProcess, noise_process
from core.sampling import build_sampler, draw_latents
from core.spec import DistillationSpec, EvaluationSpec, FewStepSpec, TrainingSpec, derive_student
from core.step_cost import transfer_costs
from core.stopping import Stopped, StopRequest
from core.student_weights import build_student
from core.students import student_rule
from core.teacher import Teacher
from core.training_step import Objective, TrainingState, train_step

KINDS = ["epsilon", "v_prediction"]
PROMPTS, SEEDS = ["small cat", "large star"], [3, 4]
TRAINING_STEPS, ROUND_STEPS, ROUNDS = 2, 2, [None, 4, 2]


class Blank(nn.Module):
    """A student that predicts nought."""

    def forward(
        self, noisy: torch.Tensor, timestep: torch.Tensor, conditions: Conditions
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        self.prediction = torch.zeros_like(noisy, requires_grad=True)
        return self.prediction, []


def target_of(objective: Objective, batch: Batch, slope: torch.Tensor | float = 1) -> torch.Tensor:
    """What an objective wants to be predicted, found from its gradient at nought.

    The loss is the mean square of slope times prediction, less the same of the target.
    """
    student = Blank()
    (terms,) = objective(student, batch)
    terms["loss"].backward()
    return -student.prediction.grad * student.prediction.numel() / (2 * slope**2)


def make_student(teacher: Teacher) -> UNet2DConditionModel:
    config = derive_student(teacher.info.unet_config, "b-tiny")
    return build_student(config, student_rule("b-tiny"), teacher.unet, seed=0)


def process_of(teacher: Teacher, kind: str) -> NoiseProcess:
    return noise_process(teacher.noise_schedule(), {"prediction_type": kind})


@pytest.mark.parametrize("kind", KINDS)
def test_folding_aims_at_the_teachers_guided_prediction(
    teacher: Teacher, batches: BatchSource, kind: str
) -> None:
    process, batch = process_of(teacher, kind), batches.batch(0, 4)
    target = target_of(GuidanceFolding(teacher.unet, process, 5.0, torch.float32), batch)
    scheduler = DDIMScheduler.from_config(teacher.scheduler_config)
    noisy = scheduler.add_noise(batch.latents_BCHW, batch.noise_BCHW, batch.timestep_B)
    with torch.no_grad():
        prompted, unprompted = (
            teacher.unet(noisy, batch.timestep_B, conditions.embeddings_BLD).sample
            for conditions in (batch.conditions, teacher.encode([""] * 4))
        )
    torch.testing.assert_close(target, 5 * prompted - 4 * unprompted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_a_perfect_student_draws_in_four_steps_what_its_guide_draws_in_eight(
    teacher: Teacher, kind: str
) -> None:
    """From the same noise, by diffusers' own sampler, to the same clean latent."""
    process, conditions = process_of(teacher, kind), teacher.encode(PROMPTS)
    config = teacher.scheduler_config | {"prediction_type": kind}
    blank = teacher.encode([""])
    expected = draw_latents(
        teacher.unet,
        conditions,
        blank,
        SEEDS,
        sampler=build_sampler("ddim-trailing", config),
        steps=8,
        guidance_scale=1,
        precision=torch.float32,
    )

    objective = StepHalving(teacher.unet, process, start=999, stride=250, precision=torch.float32)
    sampler = build_sampler("ddim-trailing", config)
    sampler.set_timesteps(4)
    shape = teacher.latent_shape
    noises = [torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in SEEDS]
    latents = torch.stack(noises)
    for timestep in sampler.timesteps:
        timestep_B = timestep.expand(2)
        # Of no picture and this noise the forward process makes these latents; they start as noise alone.
        scale = 1 if timestep == 999 else (1 - process.alphas_cumprod[timestep]).sqrt()
        batch = Batch(
            torch.zeros_like(latents), latents / scale, timestep_B, conditions, torch.ones(2).bool(), blank
        )
        nought = torch.zeros_like(latents)
        next_B = (timestep_B - 250).clamp(min=-1)
        slope = process.step(nought, nought + 1, timestep_B, next_B)
        perfect = target_of(objective, batch, slope)
        latents = sampler.step(perfect, timestep, latents, return_dict=False)[0]
    torch.testing.assert_close(latents, expected, rtol=2e-3, atol=2e-3)


def test_at_its_first_timestep_a_student_sees_noise_alone(teacher: Teacher, batches: BatchSource) -> None:
    batch = batches.batch(0, 2)
    batch = Batch(
        batch.latents_BCHW,
        batch.noise_BCHW,
        torch.tensor([999, 499]),
        batch.conditions,
        batch.matches_B,
        batch.blank,
    )
    process, seen = process_of(teacher, "epsilon"), []
    student = Blank()
    student.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    objective = StepHalving(teacher.unet, process, start=999, stride=500, precision=torch.float32)
    list(objective(student, batch))
    assert torch.equal(seen[0][0], batch.noise_BCHW[0])
    torch.testing.assert_close(seen[0][1], batch.noisy(process)[1])


@pytest.mark.parametrize("steps", [1, 4, 7])
def test_the_timesteps_are_those_of_the_exported_scheduler(teacher: Teacher, steps: int) -> None:
    timestep_K = sampler_timesteps(teacher, steps)
    assert len(timestep_K) == steps
    assert timestep_K[0] == 999
    assert timestep_K.tolist() == sorted(set(timestep_K.tolist()), reverse=True)


def test_a_student_learns_the_guided_prediction(teacher: Teacher, batches: BatchSource) -> None:
    training = TrainingSpec(batch_size=4, learning_rate=2e-3)
    state = begin_round(make_student(teacher), None, training, first_step=0)
    objective = GuidanceFolding(teacher.unet, process_of(teacher, "epsilon"), 5.0, torch.float32)
    batch = batches.batch(0, 4)
    losses = [train_step(state, objective, batch, training, step)["loss"].item() for step in range(12)]
    assert losses[-1] < 0.6 * losses[0], losses


def test_a_round_starts_from_what_the_one_before_left(teacher: Teacher) -> None:
    state = begin_round(teacher.unet, None, TrainingSpec(), first_step=40)
    for model in (state.student.unet, state.average):
        weights = model.state_dict()
        assert all(torch.equal(weights[name], weight) for name, weight in teacher.unet.state_dict().items())
    assert state.step == 40
    assert all(parameter.requires_grad for parameter in state.student.parameters())
    assert not any(parameter.requires_grad for parameter in state.average.parameters())
    with torch.no_grad():
        state.student.unet.conv_in.weight.add_(1)
    assert torch.equal(state.average.conv_in.weight, teacher.unet.conv_in.weight)


@pytest.fixture
def spec(make_spec: Callable[..., DistillationSpec]) -> DistillationSpec:
    training = {"steps": TRAINING_STEPS, "batch_size": 2, "learning_rate": 1e-3, "log_every": 1}
    few_step = {"steps": 2, "start_steps": 8, "guidance_scale": 3, "training_steps": ROUND_STEPS}
    spec = make_spec(training=training, few_step=few_step | {"learning_rate": 1e-3})
    assert spec.few_step.rounds == ROUNDS
    return spec


def run(
    teacher: Teacher,
    batches: BatchSource,
    spec: DistillationSpec,
    folder: Path,
    events: EventWriter,
    stop: StopRequest,
    drawings: list[tuple[int, EvaluationSpec]],
) -> UNet2DConditionModel:
    """Training and transfer, one after the other, from wherever the folder says."""

    def draw(drawing: EvaluationSpec, average: nn.Module, step: int) -> None:
        drawings.append((step, drawing))

    student = train(
        teacher, make_student(teacher), batches, spec, folder, lambda average, step: None, events, stop
    )
    return transfer(teacher, student, batches, spec, spec.few_step, folder, draw, events, stop)


def test_captions_are_replaced_by_the_schedule_of_the_transfer(
    teacher: Teacher,
    batches: BatchSource,
    spec: DistillationSpec,
    events: EventWriter,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    courses: list[Course] = []
    monkeypatch.setattr(few_step, "run_course", lambda course, *rest: courses.append(course))
    asked = {"random_conditioning": {"schedule": "constant", "probability": 0.25}}
    rounds = FewStepSpec.model_validate(spec.few_step.model_dump() | asked)
    student = make_student(teacher)
    transfer(teacher, student, batches, spec, rounds, tmp_path, lambda *drawn: None, events, StopRequest())
    assert len(courses) == len(ROUNDS)
    for course in courses:
        assert course.batches.method.random_conditioning == rounds.random_conditioning
        assert course.batches.method.blank_probability == spec.method.blank_probability


def test_as_many_students_are_in_memory_as_the_estimate_counts(
    teacher: Teacher,
    batches: BatchSource,
    spec: DistillationSpec,
    events: EventWriter,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    held, held_before_rounds = [], []

    def count(like: UNet2DConditionModel) -> int:
        unets = [found for found in gc.get_objects() if type(found) is UNet2DConditionModel]
        return sum(unet.num_parameters() == like.num_parameters() for unet in unets)

    def begin(student: UNet2DConditionModel, *rest: Any) -> TrainingState:
        held_before_rounds.append(count(student))
        return begin_round(student, *rest)

    monkeypatch.setattr(few_step, "begin_round", begin)

    def draw(drawing: EvaluationSpec, average: UNet2DConditionModel, step: int) -> None:
        held.append(count(average))

    student = make_student(teacher)  # which the pipeline holds on to as well
    gc.collect()
    gc.disable()  # what only a collection would free is in memory
    try:
        transfer(teacher, student, batches, spec, spec.few_step, tmp_path, draw, events, StopRequest())
    finally:
        gc.enable()
    guides = [0, 1, 1]
    left_by_rounds = [0, 1, 1]
    assert held_before_rounds == [
        1 + guide + left for guide, left in zip(guides, left_by_rounds, strict=True)
    ]
    trained_and_average = 2
    assert held == [trained_and_average + course.earlier_students for course in transfer_costs(spec.few_step)]


def test_a_transfer_that_is_stopped_after_every_step_ends_as_one_that_is_not(
    teacher: Teacher, batches: BatchSource, spec: DistillationSpec, events: EventWriter, tmp_path: Path
) -> None:
    drawings: list[tuple[int, EvaluationSpec]] = []
    whole = run(teacher, batches, spec, tmp_path / "whole", events, StopRequest(), drawings)
    total = TRAINING_STEPS + len(ROUNDS) * ROUND_STEPS
    averages, guides = {}, {}
    always = StopRequest()
    always.requested = True
    for step in range(1, total + 1):
        with pytest.raises(Stopped):
            run(teacher, batches, spec, tmp_path / "torn", events, always, [])
        checkpoint = tmp_path / "torn" / checkpoint_name(step)
        averages[step] = load_file(checkpoint / "average.safetensors")
        if (checkpoint / "guide.safetensors").exists():
            guides[step] = load_file(checkpoint / "guide.safetensors")
    torn = run(teacher, batches, spec, tmp_path / "torn", events, always, [])

    for name, weight in whole.state_dict().items():
        assert torch.equal(weight, torn.state_dict()[name]), name
    assert sorted(guides) == [5, 6, 7, 8], "folding has no guide but the teacher"
    for step, guide in guides.items():
        left_before = averages[4 if step <= 6 else 6]
        assert all(torch.equal(guide[name], left_before[name]) for name in guide)
    assert [(step, drawing.steps, drawing.guidance_scale) for step, drawing in drawings] == [
        (4, spec.evaluation.steps, 1),
        (6, 4, 1),
        (8, 2, 1),
    ]


def test_a_transfer_reports_its_own_phase(
    teacher: Teacher, batches: BatchSource, spec: DistillationSpec, events: EventWriter, tmp_path: Path
) -> None:
    run(teacher, batches, spec, tmp_path / "checkpoints", events, StopRequest(), [])
    written = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    progress = [event for event in written if event.get("phase") == "few_step"]
    assert progress[-1]["done"] == progress[-1]["total"] == len(ROUNDS) * ROUND_STEPS
    metrics = [event for event in written if event["type"] == "metrics" and event["step"] > TRAINING_STEPS]
    assert [event["step"] for event in metrics] == [3, 4, 5, 6, 7, 8]
    of_the_machine = {"samples_per_second", "process_memory_bytes"}
    assert set(metrics[0]["values"]) == {"loss", "gradient_norm", "learning_rate"} | of_the_machine
    assert metrics[0]["values"]["learning_rate"] == pytest.approx(1e-3)
    assert metrics[1]["values"]["learning_rate"] == pytest.approx(0.5e-3), "half of a round of two steps"


def test_the_shipped_scheduler_draws_as_the_student_was_trained(
    teacher: Teacher, teachers_dir: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    pipeline = StableDiffusionPipeline.from_pretrained(teachers_dir / "weights")
    pipeline.save_pretrained(tmp_path / "student")
    write_few_step_scheduler(tmp_path / "student", steps=3)
    capfd.readouterr()
    loaded = StableDiffusionPipeline.from_pretrained(tmp_path / "student")
    assert "ignored" not in capfd.readouterr().err
    assert isinstance(loaded.scheduler, DDIMScheduler)
    config = loaded.scheduler.config
    assert (config["_num_inference_steps"], config["_guidance_scale"]) == (3, 1.0)
    loaded.set_progress_bar_config(disable=True)
    theirs = loaded(
        PROMPTS,
        num_inference_steps=config["_num_inference_steps"],
        guidance_scale=config["_guidance_scale"],
        generator=[torch.Generator().manual_seed(seed) for seed in SEEDS],
        output_type="latent",
    ).images
    ours = draw_latents(
        teacher.unet,
        teacher.encode(PROMPTS),
        teacher.encode([""]),
        SEEDS,
        sampler=build_sampler("ddim-trailing", teacher.scheduler_config),
        steps=3,
        guidance_scale=1,
        precision=torch.float32,
    )
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
