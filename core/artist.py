"""Drawing pictures of captions with a teacher's parts and any U-Net of its family, teacher's or student's.

Axes: B batch, C channels, H W height and width.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from diffusers import UNet2DConditionModel

from core.sampling import build_sampler, draw_latents, set_timesteps
from core.spec import EvaluationSpec
from core.teacher import Teacher


@dataclass(frozen=True)
class Artist:
    """Draws with the sampler, steps and guidance of an evaluation.

    Attributes
    ----------
    teacher
        Lends its text encoder, decoder and noise schedule.
    unet
        What draws.
    evaluation
        How.
    """

    teacher: Teacher
    unet: UNet2DConditionModel
    evaluation: EvaluationSpec

    @property
    def unet_calls(self) -> int:
        """How often the U-Net is called for one picture; guidance calls it twice a step."""
        sampler = build_sampler(self.evaluation.sampler, self.teacher.scheduler_config)
        return len(set_timesteps(sampler, self.evaluation.steps)) * (
            2 if self.evaluation.guidance_scale > 1 else 1
        )

    def modules(self) -> list[torch.nn.Module]:
        """Return every part with weights that it draws with."""
        return [self.unet, *(part for part in self.teacher.modules() if part is not self.teacher.unet)]

    def at_steps(self, steps: int) -> "Artist":
        """Return the same artist with another number of sampler steps."""
        return replace(self, evaluation=self.evaluation.model_copy(update={"steps": steps}))

    def draw(
        self, captions: Sequence[str], seeds: Sequence[int], before_step: Callable[[], object] | None = None
    ) -> torch.Tensor:
        """Return the pictures of captions, BCHW, uint8, on the CPU; one seed a picture.

        ``before_step`` is called before every sampler step, and may raise to give the drawing up.
        """
        latents = draw_latents(
            self.unet,
            self.teacher.encode(captions),
            self.teacher.encode([""]),
            seeds,
            sampler=build_sampler(self.evaluation.sampler, self.teacher.scheduler_config),
            steps=self.evaluation.steps,
            guidance_scale=self.evaluation.guidance_scale,
            precision=self.teacher.precision,
            before_step=before_step,
        )
        return self.teacher.decode(latents).cpu()
