"""The knobs of the distillation method: part of a job's specification, and therefore free of torch."""

from typing import Literal

from pydantic import Field

from core.spec_model import SpecModel


class RandomConditioningSpec(SpecModel):
    """Probability p(t) that a sample's caption is replaced by one drawn from the whole set.

    With u = t/T: ``exponential`` exp(-5(1-u)); ``sigmoid`` 1/(1+exp(-20(u-0.7))); ``two-sided`` the
    exponential of the distance to the nearer end; ``quadratic`` (2u-1)²; ``constant`` the same p for every
    t; ``off`` never.

    References
    ----------
    Kim et al., "Random Conditioning for Diffusion Model Compression with Distillation", CVPR 2025.
    """

    schedule: Literal["exponential", "sigmoid", "two-sided", "quadratic", "constant", "off"] = "exponential"
    rate: float = Field(default=5.0, gt=0, le=100, description="λ of the exponential schedules.")
    probability: float = Field(default=0.5, ge=0, le=1, description="p of the constant schedule.")


class FeatureMatchingSpec(SpecModel):
    """Matching of what the U-Nets compute inside, h(c) under a caption c.

    ``teacher-energy`` divides each point's squared error by the teacher's own mean square there, so that no
    layer dominates; ``none`` is the published plain sum. With both weights 0 nothing inside is looked at.
    """

    weight: float = Field(default=0.1, ge=0, le=1_000)
    normalisation: Literal["teacher-energy", "none"] = "teacher-energy"
    cross_attention: bool = Field(
        default=False,
        description="Match the outputs of the cross-attentions too, besides those of the blocks.",
    )
    direction_weight: float = Field(
        default=0,
        ge=0,
        le=1_000,
        description="Weight of matching h(c) - h(∅), what a caption adds to the blank one's features; "
        "above 0 it takes one more pass of each model.",
    )


class MethodSpec(SpecModel):
    """The knobs of the distillation method itself."""

    random_conditioning: RandomConditioningSpec = RandomConditioningSpec()
    blank_probability: float = Field(default=0.1, ge=0, le=1)
    output_weight: float = Field(default=1.0, gt=0, le=1_000)
    features: FeatureMatchingSpec = FeatureMatchingSpec()
    task_weight: float = Field(
        default=0,
        ge=0,
        le=1_000,
        description="Weight of predicting the true noise, on samples that kept the caption of their picture.",
    )
    noise_matching_steps: int = Field(
        default=1,
        ge=1,
        le=8,
        description="States at which a sample is matched: its noisy latent, then those that the student's "
        "own sampler steps lead to. Each takes one pass of each model.",
    )
