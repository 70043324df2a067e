"""Drawing latents with a U-Net, teacher's or student's, by one of the samplers that a specification names.

A picture's starting noise follows from its own seed alone, so that it does not depend on its neighbours in a
batch. The sampler does what diffusers' own pipeline does, in the same order.

Axes: B batch, C channels, H W height and width, L tokens, D width of a token.
"""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, PNDMScheduler, UNet2DConditionModel

SamplerName = Literal["pndm", "ddim", "dpm-solver++"]

SAMPLERS: dict[SamplerName, tuple[type[Any], dict[str, Any]]] = {
    "pndm": (PNDMScheduler, {"skip_prk_steps": True}),
    "ddim": (DDIMScheduler, {"clip_sample": False}),
    "dpm-solver++": (DPMSolverMultistepScheduler, {"algorithm_type": "dpmsolver++"}),
}


def build_sampler(name: SamplerName, scheduler_config: dict[str, Any]) -> Any:
    """Return a diffusers scheduler over a teacher's noise schedule."""
    scheduler, settings = SAMPLERS[name]
    return scheduler.from_config(scheduler_config, **settings)


@torch.no_grad()
def draw_latents(
    unet: UNet2DConditionModel,
    prompts_BLD: torch.Tensor,
    blank_1LD: torch.Tensor,
    seeds: Sequence[int],
    *,
    sampler: Any,
    steps: int,
    guidance_scale: float,
    precision: torch.dtype,
) -> torch.Tensor:
    """Draw one latent for each prompt and seed with classifier-free guidance.

    Parameters
    ----------
    unet
        The model that draws.
    prompts_BLD, blank_1LD
        Embeddings of the prompts and of the empty prompt.
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

    Returns
    -------
    torch.Tensor
        Latents, BCHW, float32, scaled as the U-Net sees them.
    """
    sampler.set_timesteps(steps, device=unet.device)
    shape = (unet.config.in_channels, unet.config.sample_size, unet.config.sample_size)
    noise = torch.stack([torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds])
    latents = noise.to(unet.device) * sampler.init_noise_sigma
    guided = guidance_scale > 1
    condition = torch.cat([blank_1LD.expand_as(prompts_BLD), prompts_BLD]) if guided else prompts_BLD
    for timestep in sampler.timesteps:
        noisy = sampler.scale_model_input(torch.cat([latents, latents]) if guided else latents, timestep)
        with torch.autocast(unet.device.type, precision, enabled=precision != torch.float32):
            prediction = unet(noisy, timestep, condition, return_dict=False)[0].float()
        if guided:
            blank, prompted = prediction.chunk(2)
            prediction = blank + guidance_scale * (prompted - blank)
        latents = sampler.step(prediction, timestep, latents, return_dict=False)[0]
    return latents
