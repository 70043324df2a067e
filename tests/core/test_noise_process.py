"""The noise process against diffusers' schedulers, for both kinds of prediction."""

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler

from core.noise_process import END, NoiseProcess, PredictionType, noise_process

KINDS: list[PredictionType] = ["epsilon", "v_prediction"]
SCHEDULE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
SHAPE = (3, 2, 4, 4)


def make_process(kind: PredictionType) -> NoiseProcess:
    scheduler = DDPMScheduler(prediction_type=kind, **SCHEDULE)
    return noise_process(scheduler.alphas_cumprod, dict(scheduler.config))


@pytest.fixture
def latents() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    clean, noise = (torch.randn(SHAPE, generator=random) for _ in range(2))
    return clean, noise, torch.tensor([3, 500, 998])


@pytest.mark.parametrize("kind", KINDS)
def test_noise_and_velocity_are_those_of_diffusers(
    kind: PredictionType, latents: tuple[torch.Tensor, ...]
) -> None:
    scheduler, process = DDPMScheduler(**SCHEDULE), make_process(kind)
    torch.testing.assert_close(process.add_noise(*latents), scheduler.add_noise(*latents))
    expected = latents[1] if kind == "epsilon" else scheduler.get_velocity(*latents)
    torch.testing.assert_close(process.true_prediction(*latents), expected)


@pytest.mark.parametrize("steps", [1, 4, 12])
@pytest.mark.parametrize("kind", KINDS)
def test_a_step_is_that_of_diffusers_sampler(kind: PredictionType, steps: int) -> None:
    """Some of the steps from 999 down are taken by both; the last ends on the clean latent."""
    sampler = DDIMScheduler(
        prediction_type=kind,
        timestep_spacing="trailing",
        set_alpha_to_one=True,
        clip_sample=False,
        **SCHEDULE,
    )
    sampler.set_timesteps(steps)
    process, noisy, prediction = make_process(kind), torch.randn(SHAPE), torch.randn(SHAPE)
    for timestep in (int(sampler.timesteps[0]), int(sampler.timesteps[-1])):
        expected = sampler.step(prediction, timestep, noisy, return_dict=False)[0]
        next_timestep = max(timestep - 1_000 // steps, END)
        ours = process.step(noisy, prediction, torch.full((3,), timestep), torch.full((3,), next_timestep))
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)


def test_a_true_prediction_leads_back_to_the_clean_latent(latents: tuple[torch.Tensor, ...]) -> None:
    clean, noise, timestep = latents
    for kind in KINDS:
        process = make_process(kind)
        noisy = process.add_noise(clean, noise, timestep)
        prediction = process.true_prediction(clean, noise, timestep)
        ended = process.step(noisy, prediction, timestep, torch.full_like(timestep, END))
        torch.testing.assert_close(ended, clean, rtol=1e-3, atol=1e-3)
