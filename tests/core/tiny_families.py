"""Teachers of the further families, small enough to distil in a test: the real configs, narrow and shallow.

Random weights; every setting that is not a size is the published pipeline's.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    DDIMScheduler,
    EulerDiscreteScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from tests.core.conftest import CONTEXT, tiny_tokenizer, tiny_vae

WIDTH = 16
NOISE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}
SIZES = {"sample_size": 8, "norm_num_groups": 4}


def write_tiny_sd2(folder: Path) -> None:
    """Stable Diffusion 2: v-prediction, OpenCLIP's activation, linear projections, heads per stage."""
    torch.manual_seed(0)
    tokenizer = tiny_tokenizer()
    StableDiffusionPipeline(
        tokenizer=tokenizer,
        text_encoder=CLIPTextModel(_text_config(tokenizer, hidden_act="gelu")),
        vae=tiny_vae(),
        unet=_unet("sd21", block_out_channels=[20, 40, 80, 80], cross_attention_dim=WIDTH),
        scheduler=DDIMScheduler(
            **NOISE, prediction_type="v_prediction", clip_sample=False, set_alpha_to_one=False
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder, safe_serialization=True)


def write_tiny_sdxl(folder: Path) -> None:
    """Stable Diffusion XL: two text encoders, pooled text and sizes beside the time, deep innermost stage."""
    torch.manual_seed(0)
    tokenizer = tiny_tokenizer()
    StableDiffusionXLPipeline(
        tokenizer=tokenizer,
        tokenizer_2=tokenizer,
        text_encoder=CLIPTextModel(_text_config(tokenizer)),
        text_encoder_2=CLIPTextModelWithProjection(_text_config(tokenizer, hidden_act="gelu")),
        vae=tiny_vae(),
        unet=_unet(
            "sdxl",
            block_out_channels=[20, 40, 80],
            cross_attention_dim=2 * WIDTH,
            transformer_layers_per_block=[1, 2, 4],
            addition_time_embed_dim=4,
            projection_class_embeddings_input_dim=WIDTH + 6 * 4,
        ),
        scheduler=EulerDiscreteScheduler(**NOISE, timestep_spacing="leading"),
        add_watermarker=False,
    ).save_pretrained(folder, safe_serialization=True)


WRITERS: dict[str, Callable[[Path], None]] = {"sd2": write_tiny_sd2, "sdxl": write_tiny_sdxl}


def _unet(name: str, **sizes: Any) -> UNet2DConditionModel:
    real = json.loads(Path(__file__).with_name(f"{name}_unet_config.json").read_text())
    return UNet2DConditionModel.from_config(real | SIZES | sizes)


def _text_config(tokenizer: CLIPTokenizer, **settings: Any) -> CLIPTextConfig:
    return CLIPTextConfig(
        hidden_size=WIDTH,
        projection_dim=WIDTH,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        vocab_size=len(tokenizer),
        max_position_embeddings=CONTEXT,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **settings,
    )
