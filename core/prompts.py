"""Prompts as a U-Net takes them: an adapter per family encodes text as the family's diffusers pipeline does.

Stable Diffusion 1 and 2 have one text encoder, whose last layer the U-Net attends to. SDXL has two: the
U-Net attends to the last layer but one of both, side by side, and adds to its time embedding the second one's
pooled output and the picture's size and crop.

Axes: B batch, L tokens, D width of a token.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from core.conditions import Conditions
from core.frozen import load_frozen
from core.teacher_folder import TeacherInfo, read_json


class PromptEncoder(Protocol):
    """Encodes prompts for one family."""

    @property
    def tokenizer(self) -> CLIPTokenizer:
        """The tokenizer whose context length all prompts are padded to."""

    @property
    def text_encoders(self) -> Sequence[torch.nn.Module]:
        """The models that it encodes with."""

    def __call__(self, prompts: Sequence[str]) -> Conditions:
        """Encode prompts; the empty one stands for no prompt at all."""


@dataclass(frozen=True)
class SingleEncoder:
    """One text encoder: Stable Diffusion 1 (CLIP) and 2 (OpenCLIP)."""

    tokenizer: CLIPTokenizer
    text_encoder: CLIPTextModel

    @property
    def text_encoders(self) -> Sequence[torch.nn.Module]:
        """The one encoder."""
        return [self.text_encoder]

    @torch.no_grad()
    def __call__(self, prompts: Sequence[str]) -> Conditions:
        """Encode prompts; the empty one is text like any other."""
        return Conditions(self.text_encoder(_token_ids(self.tokenizer, prompts, self.text_encoder.device))[0])


@dataclass(frozen=True)
class DoubleEncoder:
    """Two text encoders and the picture's size: Stable Diffusion XL.

    Attributes
    ----------
    tokenizer, text_encoder, tokenizer_2, text_encoder_2
        Both encoders.
    size
        Side of a picture in pixels, said to be uncropped.
    zero_blank
        Whether no prompt means embeddings of zero, as in the published SDXL, or the empty text's.
    """

    tokenizer: CLIPTokenizer
    text_encoder: CLIPTextModel
    tokenizer_2: CLIPTokenizer
    text_encoder_2: CLIPTextModelWithProjection
    size: int
    zero_blank: bool

    @property
    def text_encoders(self) -> Sequence[torch.nn.Module]:
        """Both encoders."""
        return [self.text_encoder, self.text_encoder_2]

    @torch.no_grad()
    def __call__(self, prompts: Sequence[str]) -> Conditions:
        """Encode prompts; the empty one is what the pipeline takes for no prompt."""
        device = self.text_encoder.device
        first = self.text_encoder(_token_ids(self.tokenizer, prompts, device), output_hidden_states=True)
        second = self.text_encoder_2(_token_ids(self.tokenizer_2, prompts, device), output_hidden_states=True)
        embeddings_BLD = torch.cat([first.hidden_states[-2], second.hidden_states[-2]], dim=-1)
        pooled_BD = second.text_embeds
        if self.zero_blank:
            shown_B = torch.tensor([bool(prompt) for prompt in prompts]).to(device, non_blocking=True)
            embeddings_BLD = embeddings_BLD * shown_B[:, None, None]
            pooled_BD = pooled_BD * shown_B[:, None]
        # original height and width, crop from top and left, target height and width
        time_ids = torch.tensor(
            [self.size, self.size, 0, 0, self.size, self.size], dtype=embeddings_BLD.dtype
        )
        time_ids = time_ids.to(device, non_blocking=True).expand(len(prompts), -1)
        return Conditions(embeddings_BLD, {"text_embeds": pooled_BD, "time_ids": time_ids})


def load_prompt_encoder(info: TeacherInfo, device: torch.device) -> PromptEncoder:
    """Load a teacher's tokenizers and text encoders."""

    def part(model_class: Any, name: str) -> Any:
        return load_frozen(model_class, info.path / name).to(device)

    tokenizer = CLIPTokenizer.from_pretrained(info.path / "tokenizer")
    text_encoder = part(CLIPTextModel, "text_encoder")
    if info.family != "sdxl":
        return SingleEncoder(tokenizer, text_encoder)
    return DoubleEncoder(
        tokenizer,
        text_encoder,
        CLIPTokenizer.from_pretrained(info.path / "tokenizer_2"),
        part(CLIPTextModelWithProjection, "text_encoder_2"),
        size=info.unet_config["sample_size"] * _pixels_per_latent(info.path / "vae"),
        # The default is diffusers' own.
        zero_blank=read_json(info.path / "model_index.json").get("force_zeros_for_empty_prompt", True),
    )


def _pixels_per_latent(vae: Path) -> int:
    """Return the side in pixels of what a decoder makes of one latent: every stage but one doubles it."""
    return 2 ** (len(read_json(vae / "config.json")["block_out_channels"]) - 1)


def _token_ids(tokenizer: CLIPTokenizer, prompts: Sequence[str], device: torch.device) -> torch.Tensor:
    """Return the tokens of prompts, padded to the tokenizer's context as in the pipelines."""
    tokens = tokenizer(
        list(prompts),
        padding="max_length",
        max_length=tokenizer.model_max_length,
        truncation=True,
        return_tensors="pt",
    )
    return tokens.input_ids.to(device, non_blocking=True)
