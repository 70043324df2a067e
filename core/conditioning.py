"""Random conditioning: with probability p(t) a sample's caption is replaced by any other of the whole set.

The student thereby learns concepts that no picture was drawn for. What comes out is one caption index a
sample, which teacher and student share.

References
----------
Kim, Park, Han, Kim, Seo: "Random Conditioning for Diffusion Model Compression with Distillation", CVPR 2025.
"""

from collections.abc import Callable

import torch

from core.spec import MethodSpec, RandomConditioningSpec

SCHEDULES: dict[str, Callable[[torch.Tensor, RandomConditioningSpec], torch.Tensor]] = {
    "exponential": lambda u, spec: torch.exp(-spec.rate * (1 - u)),
    "sigmoid": lambda u, spec: torch.sigmoid(20 * (u - 0.7)),
    "two-sided": lambda u, spec: torch.exp(-spec.rate * torch.minimum(u, 1 - u)),
    "quadratic": lambda u, spec: (2 * u - 1).square(),
    "constant": lambda u, spec: torch.full_like(u, spec.probability),
    "off": lambda u, spec: torch.zeros_like(u),
}


def replacement_probability(spec: RandomConditioningSpec, u: torch.Tensor) -> torch.Tensor:
    """Return p(t) for u = t/T, 0 for a clean picture and 1 for noise."""
    return SCHEDULES[spec.schedule](u, spec)


def choose_captions(
    caption_B: torch.Tensor,
    u_B: torch.Tensor,
    caption_count: int,
    method: MethodSpec,
    generator: torch.Generator,
) -> torch.Tensor:
    """Replace captions with probability p(t), then blank them with the blank probability.

    Parameters
    ----------
    caption_B
        Index of each sample's own caption.
    u_B
        t/T of each sample.
    caption_count
        Size of the whole set; as an index it stands for the blank caption.
    method
        The schedule and the blank probability.
    generator
        The source of all randomness here.
    """
    B = len(caption_B)
    replaced = torch.rand(B, generator=generator) < replacement_probability(method.random_conditioning, u_B)
    others = torch.randint(caption_count, (B,), generator=generator)
    blanked = torch.rand(B, generator=generator) < method.blank_probability
    return torch.where(replaced, others, caption_B).masked_fill(blanked, caption_count)
