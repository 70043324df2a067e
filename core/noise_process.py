"""The noise process that teacher and student share, and what a U-Net's prediction means in it.

A noisy latent is x_t = a_t x_0 + s_t ε with a_t = √ᾱ_t and s_t = √(1 - ᾱ_t). A U-Net predicts either ε or
v = a_t ε - s_t x_0; everything that depends on which of the two is here. The timestep -1 stands for the end
of the process, where a latent is clean.

Axes: B batch, C channels, H W height and width.

References
----------
Song, Meng, Ermon: "Denoising Diffusion Implicit Models", ICLR 2021 (the step).
Salimans, Ho: "Progressive Distillation for Fast Sampling of Diffusion Models", ICLR 2022 (v).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch

END = -1

PredictionType = Literal["epsilon", "v_prediction"]


@dataclass(frozen=True)
class NoiseProcess:
    """A noise schedule and a kind of prediction.

    Attributes
    ----------
    alphas_cumprod
        ᾱ_t of the T timesteps, and behind them 1 for `END`, which as an index means the last.
    prediction_type
        What the U-Net predicts.
    """

    alphas_cumprod: torch.Tensor
    prediction_type: PredictionType

    @property
    def timesteps(self) -> int:
        """T."""
        return len(self.alphas_cumprod) - 1

    def add_noise(
        self, clean_BCHW: torch.Tensor, noise_BCHW: torch.Tensor, timestep_B: torch.Tensor
    ) -> torch.Tensor:
        """Return x_t."""
        a, s = self._scales(timestep_B)
        return a * clean_BCHW + s * noise_BCHW

    def true_prediction(
        self, clean_BCHW: torch.Tensor, noise_BCHW: torch.Tensor, timestep_B: torch.Tensor
    ) -> torch.Tensor:
        """Return what a U-Net that knew x_0 and ε would predict."""
        if self.prediction_type == "epsilon":
            return noise_BCHW
        a, s = self._scales(timestep_B)
        return a * noise_BCHW - s * clean_BCHW

    def step(
        self,
        noisy_BCHW: torch.Tensor,
        prediction_BCHW: torch.Tensor,
        timestep_B: torch.Tensor,
        next_B: torch.Tensor,
    ) -> torch.Tensor:
        """Return the latent at `next_B` to which a prediction at `timestep_B` leads: DDIM with η = 0."""
        a, s = self._scales(timestep_B)
        if self.prediction_type == "epsilon":
            clean, noise = (noisy_BCHW - s * prediction_BCHW) / a, prediction_BCHW
        else:
            clean = a * noisy_BCHW - s * prediction_BCHW
            noise = s * noisy_BCHW + a * prediction_BCHW
        return self.add_noise(clean, noise, next_B)

    def _scales(self, timestep_B: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        alpha_B111 = self.alphas_cumprod[timestep_B][:, None, None, None]
        return alpha_B111.sqrt(), (1 - alpha_B111).sqrt()


def noise_process(noise_schedule: torch.Tensor, scheduler_config: Mapping[str, Any]) -> NoiseProcess:
    """Return the noise process of a pipeline.

    Parameters
    ----------
    noise_schedule
        ᾱ_t of its T timesteps.
    scheduler_config
        Its scheduler's config, which names the prediction type.
    """
    alphas_cumprod = torch.cat([noise_schedule, noise_schedule.new_ones(1)])
    return NoiseProcess(alphas_cumprod, scheduler_config.get("prediction_type", "epsilon"))
