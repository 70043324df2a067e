"""Our sampler draws what diffusers' own pipeline draws, and a picture does not depend on its neighbours."""

from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline

from core.artist import Artist
from core.sampling import SAMPLERS, build_sampler, draw_latents
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
