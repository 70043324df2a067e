"""A Stable Diffusion pipeline folder with random weights, around any U-Net config."""

import json
from pathlib import Path

import torch
from diffusers import AutoencoderKL, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from core.files import replacing

PROMPT_TOKENS = 77
# Stable Diffusion 1.4's own parts beside the U-Net; a text encoder is as wide as what the U-Net attends to.
TEXT_LAYERS, CHANNELS_PER_HEAD, INTERMEDIATE = 12, 64, 4
AUTOENCODER = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
    "scaling_factor": 0.18215,
}
NOISE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}


def write_random_teacher(folder: Path, unet_config: Path, tokenizer: Path) -> None:
    """Write the folder, in half precision as published.

    Parameters
    ----------
    folder
        Where to.
    unet_config
        ``config.json`` of the U-Net.
    tokenizer
        Folder of the tokenizer to use; what prompts mean does not matter to random weights.
    """
    torch.manual_seed(0)
    unet = UNet2DConditionModel.from_config(json.loads(unet_config.read_text()))
    words = CLIPTokenizer.from_pretrained(tokenizer, model_max_length=PROMPT_TOKENS)
    width = unet.config.cross_attention_dim
    text_encoder = CLIPTextConfig(
        hidden_size=width,
        intermediate_size=INTERMEDIATE * width,
        num_hidden_layers=TEXT_LAYERS,
        num_attention_heads=width // CHANNELS_PER_HEAD,
        max_position_embeddings=PROMPT_TOKENS,
        bos_token_id=words.bos_token_id,
        eos_token_id=words.eos_token_id,
        pad_token_id=words.pad_token_id,
    )
    pipeline = StableDiffusionPipeline(
        tokenizer=words,
        text_encoder=CLIPTextModel(text_encoder),
        vae=AutoencoderKL(
            latent_channels=unet.config.in_channels, sample_size=8 * unet.config.sample_size, **AUTOENCODER
        ),
        unet=unet,
        scheduler=PNDMScheduler(skip_prk_steps=True, set_alpha_to_one=False, **NOISE),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    with replacing(folder) as temporary:
        pipeline.to(torch.float16).save_pretrained(temporary, safe_serialization=True)
        (temporary / "teacher.json").write_text(json.dumps({"id": "random"}) + "\n")
