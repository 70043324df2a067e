"""The teacher's VAE: 64x64 RGB pictures to 8x8 latents of 16 channels and back.

References
----------
Rombach et al., "High-Resolution Image Synthesis with Latent Diffusion Models", CVPR 2022.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file

from teachers.emoji_64.captions import random_captioned_picture
from teachers.emoji_64.concepts import Concept
from teachers.emoji_64.pictures import RESOLUTION, PictureBook
from teachers.emoji_64.training import FitSettings, fit, load_average, rank_and_world

CHECKPOINT = "vae"
LATENTS_FILE = "latents.safetensors"
LATENT_CHANNELS = 16
SETTINGS = FitSettings(
    steps=4_800,
    learning_rate=1.2e-3,
    matrix_learning_rate=3e-3,
    warmup_steps=100,
    weight_decay=0.0,
    ema_decay=0.998,
    checkpoint_every=250,
)
BATCH_SIZE = 8
KL_WEIGHT = 5e-5
SQUARED_ERROR_WEIGHT = 1.0
EDGE_WEIGHT = 0.5


def build_vae() -> AutoencoderKL:
    """Build the untrained VAE."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(16, 32, 64, 96),
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=2,
        sample_size=RESOLUTION,
    )


def train_vae(concepts: Sequence[Concept], book: PictureBook, work: Path, seed: int) -> None:
    """Train the VAE on pictures in every size and on every background, leaving a checkpoint in `work`."""
    torch.manual_seed(seed)
    vae = build_vae().train()
    _, world = rank_and_world()

    def batch_loss(rng: np.random.Generator, generator: torch.Generator) -> torch.Tensor:
        chosen = rng.choice(len(concepts), BATCH_SIZE // world)
        pictures = book.compose([random_captioned_picture(rng, concepts, int(c)) for c in chosen])
        with torch.autocast("cpu", torch.bfloat16):
            posterior = vae.encode(pictures).latent_dist
            decoded = vae.decode(posterior.sample(generator)).sample
        divergence = posterior.kl().float().mean() / posterior.mean[0].numel()
        return reconstruction_loss(decoded.float(), pictures) + KL_WEIGHT * divergence

    fit(CHECKPOINT, work, vae, batch_loss, SETTINGS)


def reconstruction_loss(decoded_BCHW: torch.Tensor, pictures_BCHW: torch.Tensor) -> torch.Tensor:
    """Absolute and squared error of the pixels, and absolute error of the edges between neighbours."""
    error = decoded_BCHW - pictures_BCHW
    edges = error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean()
    return error.abs().mean() + SQUARED_ERROR_WEIGHT * error.square().mean() + EDGE_WEIGHT * edges


def load_vae(work: Path) -> AutoencoderKL:
    """Load the trained VAE with its averaged weights, frozen and in evaluation mode."""
    vae = build_vae()
    vae.load_state_dict(load_average(work, CHECKPOINT))
    return vae.eval().requires_grad_(False)


def load_standardised_vae(work: Path) -> AutoencoderKL:
    """Load the VAE as the pipeline uses it: latents of mean 0 and deviation 1 in every channel."""
    vae = load_vae(work)
    statistics = load_file(work / LATENTS_FILE)
    standardise_latents(vae, statistics["mean"], statistics["deviation"])
    return vae


@torch.no_grad()
def standardise_latents(vae: AutoencoderKL, mean_C: torch.Tensor, deviation_C: torch.Tensor) -> None:
    """Fold the standardisation of the latents into the 1x1 convolutions at either side of them, in place.

    The pipeline knows one scaling factor for all channels; folded in, every channel has mean 0 and
    deviation 1 and the VAE reconstructs what it did before.

    Parameters
    ----------
    vae
        The trained VAE.
    mean_C, deviation_C
        Of its posterior means over the training pictures, channel by channel.
    """
    C = len(mean_C)
    encode, decode = vae.quant_conv, vae.post_quant_conv
    encode.weight[:C] /= deviation_C[:, None, None, None]
    encode.bias[:C] = (encode.bias[:C] - mean_C) / deviation_C
    encode.bias[C:] -= 2 * deviation_C.log()
    decode.bias += decode.weight.flatten(1) @ mean_C
    decode.weight *= deviation_C[:, None, None]
    vae.register_to_config(scaling_factor=1.0)
