"""Jobs to begin with: a few named specifications that the form can be filled with."""

from dataclasses import dataclass
from typing import Any

BUNDLED_TEACHER = "emoji-64"


@dataclass(frozen=True)
class Preset:
    """A named specification.

    Attributes
    ----------
    title, description
        For people.
    fields
        Of a submission, but for the teacher.
    """

    title: str
    description: str
    fields: dict[str, Any]


_LATENTS = {"sampler": "dpm-solver++", "steps": 20, "guidance_scale": 3.0, "batch_size": 32}
_SHORT_EVALUATION = {"samples": 48, "steps": 20, "guidance_scale": 3.0, "batch_size": 32}

PRESETS: dict[str, Preset] = {
    "demo": Preset(
        "Demo",
        "450 steps on 48 teacher pictures: minutes with the bundled teacher on two processor cores.",
        {
            "student": "b-small",
            "drawn": {"count": 48},
            "latents": _LATENTS,
            "training": {
                "steps": 450,
                "batch_size": 48,
                "learning_rate": 5e-4,
                "warmup_steps": 20,
                "learning_rate_schedule": "cosine",
                "ema_decay": 0.99,
                "log_every": 10,
                "checkpoint_every": 150,
                "sample_every": 150,
            },
            "evaluation": _SHORT_EVALUATION,
        },
    ),
    "quick": Preset(
        "Quick look",
        "60 small steps: to see that captions and teacher work, not to get a good student.",
        {
            "student": "b-small",
            "drawn": {"count": 16},
            "latents": _LATENTS | {"steps": 8, "batch_size": 16},
            "training": {
                "steps": 60,
                "batch_size": 16,
                "learning_rate": 5e-4,
                "warmup_steps": 5,
                "ema_decay": 0.95,
                "log_every": 2,
                "checkpoint_every": 20,
                "sample_every": 15,
            },
            "evaluation": {
                "samples": 16,
                "steps": 8,
                "guidance_scale": 3.0,
                "batch_size": 16,
                "bootstrap_resamples": 0,
            },
        },
    ),
    "paper": Preset(
        "As published",
        "The published training of Stable Diffusion 1.4: 50,000 steps of 256 samples, both losses at "
        "weight 1, the plain sum of the features. For an accelerator.",
        {
            "student": "b-base",
            "method": {"features": {"weight": 1.0, "normalisation": "none"}},
            "evaluation": {"samples": 1_000, "steps": 25, "sampler": "pndm"},
        },
    ),
}
