"""Drawing latents with a U-Net, teacher's or student's, by one of the samplers that a specification names.

A picture's starting noise follows from its own seed alone, so that it does not depend on its neighbours in a
batch. The sampler does what diffusers' own pipeline does, in the same order.

Axes: B batch, C channels, H W height and width.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    PNDMScheduler,
    UNet2DConditionModel,
)

from core.conditions import Conditions
from core.spec import SamplerName

SAMPLERS: dict[SamplerName, tuple[type[Any], dict[str, Any]]] = {
    "pndm": (PNDMScheduler, {"skip_prk_steps": True}),
    "ddim": (DDIMScheduler, {"clip_sample": False}),
    # From pure noise to the clean latent, which matters the more the fewer the steps are (Lin et al., "Common
    # Diffusion Noise Schedules and Sample Steps are Flawed", WACV 2024).
    "ddim-trailing": (
        DDIMScheduler,
        {"clip_sample": False, "timestep_spacing": "trailing", "set_alpha_to_one": True},
    ),
    "dpm-solver++": (DPMSolverMultistepScheduler, {"algorithm_type": "dpmsolver++"}),
}


def build_sampler(name: SamplerName, scheduler_config: dict[str, Any]) -> Any:
    """Return a diffusers scheduler over a teacher's noise schedule."""
    scheduler, settings = SAMPLERS[name]
    if scheduler is PNDMScheduler and scheduler_config.get("rescale_betas_zero_snr"):
        settings = settings | _zero_snr_settings(scheduler_config)
    return scheduler.from_config(scheduler_config, **settings)


def set_timesteps(sampler: Any, steps: int, device: torch.device | None = None) -> torch.Tensor:
    """Set a sampler's timesteps and return them, falling, all of them the model's own.

    Diffusers' DDIM scheduler with trailing timesteps adds one below 0 for some numbers of steps, such as 61
    (`core.few_step_spec.oversteps`).
    """
    sampler.set_timesteps(steps, device=device)
    return sampler.timesteps[sampler.timesteps >= 0]


def _zero_snr_settings(scheduler_config: dict[str, Any]) -> dict[str, Any]:
    """Return what makes a PNDM scheduler follow a noise schedule rescaled to end in noise alone.

    It does not know of the rescaling, and it divides by the signal, of which the last timestep has none.
    """
    betas = DDPMScheduler.from_config(scheduler_config).betas.tolist()
    return {"trained_betas": betas, "timestep_spacing": "leading"}


@torch.no_grad()
def draw_latents(
    unet: UNet2DConditionModel,
    conditions: Conditions,
    blank: Conditions,
    seeds: Sequence[int],
    *,
    sampler: Any,
    steps: int,
    guidance_scale: float,
    precision: torch.dtype,
    before_step: Callable[[], object] | None = None,
) -> torch.Tensor:
    """Draw one latent for each prompt and seed with classifier-free guidance.

    Parameters
    ----------
    unet
        The model that draws.
    conditions, blank
        Those of the prompts, and the one of the empty prompt.
    seeds
        Seed of each picture's starting noise.
    sampler
        What `build_sampler` returned.
    steps
        Number of sampler steps.
    guidance_scale
        Weight of the guidance; 1 means none.
    precision
        What the U-Net computes in.
    before_step
        Called before every step.

    Returns
    -------
    torch.Tensor
        Latents, BCHW, float32, scaled as the U-Net sees them.
    """
    timesteps = set_timesteps(sampler, steps, unet.device)
    shape = (unet.config.in_channels, unet.config.sample_size, unet.config.sample_size)
    noise = torch.stack([torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds])
    latents = noise.to(unet.device) * sampler.init_noise_sigma
    guided = guidance_scale > 1
    if guided:
        conditions = Conditions.concatenate([blank.expand(len(conditions)), conditions])
    for timestep in timesteps:
        if before_step is not None:
            before_step()
        noisy = sampler.scale_model_input(torch.cat([latents, latents]) if guided else latents, timestep)
        with torch.autocast(unet.device.type, precision, enabled=precision != torch.float32):
            prediction = conditions.predict(unet, noisy, timestep).float()
        if guided:
            unprompted, prompted = prediction.chunk(2)
            prediction = unprompted + guidance_scale * (prompted - unprompted)
        latents = sampler.step(prediction, timestep, latents, return_dict=False)[0]
    return latents
