"""Loading a teacher: the parts of a pipeline folder, frozen, with what they need to be used.

Weights are read from safetensors only and no code of the folder ever runs. Everything here runs under
``torch.no_grad``, not in inference mode, because the student's loss takes the teacher's outputs.

Axes: B batch, C channels, H W height and width, L tokens, D width of a token.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from safetensors import SafetensorError
from transformers import CLIPTokenizer

from core.conditions import Conditions
from core.errors import BadTeacherError
from core.exhaustion import exhaustion
from core.frozen import load_frozen
from core.prompts import PromptEncoder, load_prompt_encoder
from core.teacher_folder import TeacherInfo

DECODED_PIXELS = 1_024**2


@dataclass(frozen=True)
class Teacher:
    """A loaded teacher of any family.

    Attributes
    ----------
    info
        What its folder says of it.
    encode_prompts
        Its family's way from text to what the U-Net takes.
    vae, unet
        The pipeline's decoder and its U-Net.
    scheduler_config
        The noise schedule and prediction type, which the student shares.
    precision
        What U-Nets, its own and its students', compute in.
    """

    info: TeacherInfo
    encode_prompts: PromptEncoder
    vae: AutoencoderKL
    unet: UNet2DConditionModel
    scheduler_config: dict[str, Any]
    precision: torch.dtype

    @property
    def device(self) -> torch.device:
        """Where the U-Net is."""
        return self.unet.device

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """C, H and W of a latent."""
        size = self.unet.config.sample_size
        return self.unet.config.in_channels, size, size

    @property
    def tokenizer(self) -> CLIPTokenizer:
        """The tokenizer whose context length all prompts are padded to."""
        return self.encode_prompts.tokenizer

    def modules(self) -> list[torch.nn.Module]:
        """Return every part that has weights."""
        return [self.unet, self.vae, *self.encode_prompts.text_encoders]

    def noise_schedule(self) -> torch.Tensor:
        """Return ᾱ_t, the share of a picture's variance left at each of the T timesteps."""
        return DDPMScheduler.from_config(self.scheduler_config).alphas_cumprod.to(self.device)

    def encode(self, prompts: Sequence[str]) -> Conditions:
        """Return what the U-Net is told of prompts; the empty one stands for no prompt at all."""
        return self.encode_prompts(prompts)

    @torch.no_grad()
    def decode(self, latents_BCHW: torch.Tensor) -> torch.Tensor:
        """Return the pictures of latents, BCHW, uint8.

        So many at once as have `DECODED_PIXELS`, at least one: of a picture of 1024 by 1024 the decoder of
        Stable Diffusion holds 3 GiB, whatever the batch size that the U-Net draws in.
        """
        scale = 2 ** (len(self.vae.config.block_out_channels) - 1)
        height, width = latents_BCHW.shape[2:]
        at_once = max(1, DECODED_PIXELS // (height * width * scale**2))
        return torch.cat([self._decode_at_once(latents) for latents in latents_BCHW.split(at_once)])

    def _decode_at_once(self, latents_BCHW: torch.Tensor) -> torch.Tensor:
        pictures = self.vae.decode(latents_BCHW / self.vae.config.scaling_factor, return_dict=False)[0]
        return ((pictures / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8)


def load_teacher(info: TeacherInfo, device: torch.device, precision: torch.dtype = torch.float32) -> Teacher:
    """Load a teacher's parts onto a device, their weights in float32.

    Raises
    ------
    BadTeacherError
        If a part is missing, damaged, or not what its config says.
    OutOfMemoryError
        If there is no room for it.
    """
    if info.unet_config.get("sample_size") is None:
        raise BadTeacherError(
            f"the U-Net's config of teacher {info.id} has no sample_size",
            "give it the side of the latents that the teacher was trained on",
        )
    try:
        return Teacher(
            info=info,
            encode_prompts=load_prompt_encoder(info, device),
            vae=load_frozen(AutoencoderKL, info.path / "vae").to(device),
            unet=load_frozen(UNet2DConditionModel, info.path / "unet").to(device),
            scheduler_config=DDPMScheduler.load_config(info.path / "scheduler"),
            precision=precision,
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise exhaustion(error) or BadTeacherError(
            f"teacher {info.id} cannot be loaded: {error}",
            "diffusers.DiffusionPipeline.from_pretrained must be able to load the folder",
        ) from error
