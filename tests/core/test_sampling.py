"""Our sampler draws what diffusers' own pipeline draws, and a picture does not depend on its neighbours."""

from pathlib import Path

import pytest
import torch
from diffusers import DDPMScheduler, StableDiffusionPipeline

from core.artist import Artist
from core.sampling import SAMPLERS, build_sampler, draw_latents, set_timesteps
from core.spec import MOST_SAMPLER_STEPS, EvaluationSpec
from core.teacher import Teacher

PROMPTS, SEEDS = ["small cat", "large star"], [3, 2**62 + 1]


@pytest.fixture(scope="module")
def pipeline(teachers_dir: Path) -> StableDiffusionPipeline:
    pipeline = StableDiffusionPipeline.from_pretrained(teachers_dir / "weights")
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.mark.parametrize("guidance_scale", [1.0, 5.0])
@pytest.mark.parametrize("name", SAMPLERS)
def test_draws_what_the_pipeline_draws(
    teacher: Teacher, pipeline: StableDiffusionPipeline, name: str, guidance_scale: float
) -> None:
    ours = draw_latents(
        teacher.unet,
        teacher.encode(PROMPTS),
        teacher.encode([""]),
        SEEDS,
        sampler=build_sampler(name, teacher.scheduler_config),
        steps=4,
        guidance_scale=guidance_scale,
        precision=torch.float32,
    )
    pipeline.scheduler = build_sampler(name, teacher.scheduler_config)
    theirs = pipeline(
        PROMPTS,
        num_inference_steps=4,
        guidance_scale=guidance_scale,
        generator=[torch.Generator().manual_seed(seed) for seed in SEEDS],
        output_type="latent",
    ).images
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_most_steps_that_can_be_asked_for_are_timesteps_of_the_model(teacher: Teacher, name: str) -> None:
    sampler = build_sampler(name, teacher.scheduler_config)
    sampler.set_timesteps(EvaluationSpec(steps=MOST_SAMPLER_STEPS).steps)
    assert sampler.timesteps.max() < sampler.config.num_train_timesteps


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("steps", [61, 103, 998])
def test_a_sampler_steps_from_timesteps_of_the_model_alone(teacher: Teacher, name: str, steps: int) -> None:
    timesteps = set_timesteps(build_sampler(name, teacher.scheduler_config), steps)
    assert timesteps.min() >= 0
    assert len(timesteps) == steps + (name == "pndm")  # which makes its second step twice


@pytest.mark.parametrize("spacing", ["leading", "trailing"])
@pytest.mark.parametrize("name", SAMPLERS)
def test_samplers_follow_a_noise_schedule_that_ends_in_noise_alone(
    teacher: Teacher, name: str, spacing: str
) -> None:
    config = {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True, "timestep_spacing": spacing}
    config = teacher.scheduler_config | config
    sampler = build_sampler(name, config)
    expected = DDPMScheduler.from_config(config).alphas_cumprod
    torch.testing.assert_close(sampler.alphas_cumprod, expected, rtol=1e-4, atol=1e-7)
    latents = draw_latents(
        teacher.unet,
        teacher.encode(PROMPTS),
        teacher.encode([""]),
        SEEDS,
        sampler=sampler,
        steps=3,
        guidance_scale=2.0,
        precision=torch.float32,
    )
    assert latents.isfinite().all()


def test_a_picture_does_not_depend_on_its_neighbours(teacher: Teacher) -> None:
    artist = Artist(teacher, teacher.unet, EvaluationSpec(steps=3, guidance_scale=3))
    together = artist.draw(PROMPTS, SEEDS)
    alone = torch.cat([artist.draw([text], [seed]) for text, seed in zip(PROMPTS, SEEDS, strict=True)])
    assert together.dtype == torch.uint8
    assert together.shape == (2, 3, 32, 32)
    assert (together.int() - alone.int()).abs().max() <= 1
    assert not torch.equal(together[0], together[1])


def test_the_noise_schedule_is_stable_diffusions(teacher: Teacher) -> None:
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1_000, dtype=torch.float64) ** 2
    expected = torch.cumprod(1 - betas, dim=0).float()
    torch.testing.assert_close(teacher.noise_schedule(), expected, rtol=1e-4, atol=0)
