"""The teacher's U-Net, in the Stable Diffusion 1.4 pattern, trained on latents and frozen text embeddings.

References
----------
Ho & Salimans, "Classifier-Free Diffusion Guidance", 2022: blank captions.
Hang et al., "Efficient Diffusion Training via Min-SNR Weighting Strategy", ICCV 2023, and Salimans & Ho,
"Progressive Distillation for Fast Sampling of Diffusion Models", ICLR 2022: the loss weight.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from rich.progress import track
from safetensors.torch import load_file, save_file
from transformers import CLIPTextModel, CLIPTokenizer

from teachers.emoji_64.captions import COLOURS, SIZES, CaptionedPicture, random_captioned_picture
from teachers.emoji_64.clip import HIDDEN_SIZE
from teachers.emoji_64.concepts import Concept
from teachers.emoji_64.pictures import PictureBook
from teachers.emoji_64.training import FitSettings, fit, load_average, rank_and_world
from teachers.emoji_64.vae import LATENT_CHANNELS, LATENTS_FILE

CHECKPOINT = "unet"
SETTINGS = FitSettings(
    steps=2_700, learning_rate=1.2e-3, warmup_steps=100, ema_decay=0.996, checkpoint_every=100
)
BATCH_SIZE = 96
BLANK_PROBABILITY = 0.1
MIN_SNR_GAMMA = 5.0
# Added to every timestep's weight: without it the timesteps with hardly any signal, where the text decides
# what is drawn, make up a few hundredths of the loss.
WEIGHT_FLOOR = 0.2
NOISE_SCHEDULE = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1_000,
}


def build_unet() -> UNet2DConditionModel:
    """Build the untrained U-Net.

    The widths are multiples of 40, so that every preset width student (0.8, 0.7, 0.6, 0.5) keeps whole norm
    groups and whole attention heads.
    """
    return UNet2DConditionModel(
        sample_size=8,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        block_out_channels=(80, 120, 120, 120),
        layers_per_block=2,
        norm_num_groups=4,
        attention_head_dim=4,
        cross_attention_dim=HIDDEN_SIZE,
    )


def encode_pictures(concepts: Sequence[Concept], book: PictureBook, vae: AutoencoderKL, work: Path) -> None:
    """Encode every concept in every size on every background once.

    Writes ``latents.safetensors`` below `work`: posterior means, standardised channel by channel, float16,
    shape (concepts, sizes, colours, channels, 8, 8), with the ``mean`` and ``deviation`` of each channel.
    """
    means = []
    for concept in track(range(len(concepts)), "encoding pictures"):
        looks = [CaptionedPicture(concept, s, c, "") for s in range(len(SIZES)) for c in range(len(COLOURS))]
        with torch.no_grad():
            mean = vae.encode(book.compose(looks)).latent_dist.mean
        means.append(mean.unflatten(0, (len(SIZES), len(COLOURS))))
    latents = torch.stack(means)
    mean_C, deviation_C = latents.mean(dim=(0, 1, 2, 4, 5)), latents.std(dim=(0, 1, 2, 4, 5))
    standardised = (latents - mean_C[:, None, None]) / deviation_C[:, None, None]
    save_file({"latents": standardised.half(), "mean": mean_C, "deviation": deviation_C}, work / LATENTS_FILE)


def train_unet(
    concepts: Sequence[Concept],
    tokenizer: CLIPTokenizer,
    text_encoder: CLIPTextModel,
    work: Path,
    seed: int,
) -> None:
    """Train the U-Net to predict the noise; leaves a checkpoint in `work`.

    The squared error is weighted by min(SNR, 5) + 0.2 when seen as an error of the clean latents, so that
    every part of the schedule has a like share of the loss: minimum-SNR weighting where there is signal, the
    constant of SNR + 1 weighting where there is hardly any.
    """
    torch.manual_seed(seed)
    unet = build_unet().train()
    latents = load_file(work / LATENTS_FILE)["latents"]
    signal = DDPMScheduler(**NOISE_SCHEDULE).alphas_cumprod
    ratio = signal / (1 - signal)
    weight_by_timestep = (ratio.clamp(max=MIN_SNR_GAMMA) + WEIGHT_FLOOR) / ratio
    share = BATCH_SIZE // rank_and_world()[1]

    def batch_loss(rng: np.random.Generator, generator: torch.Generator) -> torch.Tensor:
        chosen = rng.choice(len(concepts), share)
        wanted = [random_captioned_picture(rng, concepts, int(concept)) for concept in chosen]
        captions = ["" if rng.random() < BLANK_PROBABILITY else w.caption for w in wanted]
        condition = encode_captions(captions, tokenizer, text_encoder)
        x_0 = latents[chosen, [w.size for w in wanted], [w.colour for w in wanted]].float()
        noise = torch.randn(x_0.shape, generator=generator)
        t = torch.randint(0, len(signal), (share,), generator=generator)
        alpha_bar = signal[t, None, None, None]
        x_t = alpha_bar.sqrt() * x_0 + (1 - alpha_bar).sqrt() * noise
        predicted = unet(x_t, t, condition, return_dict=False)[0]
        squared_error = (predicted - noise).square().mean(dim=(1, 2, 3))
        return (weight_by_timestep[t] * squared_error).mean()

    fit(CHECKPOINT, work, unet, batch_loss, SETTINGS)


def encode_captions(
    captions: Sequence[str], tokenizer: CLIPTokenizer, text_encoder: CLIPTextModel
) -> torch.Tensor:
    """Embed captions as the pipeline does; float32, shape (B, context length, hidden size)."""
    tokens = tokenizer(list(captions), padding="max_length", truncation=True, return_tensors="pt")
    with torch.no_grad():
        return text_encoder(tokens.input_ids).last_hidden_state


def load_unet(work: Path) -> UNet2DConditionModel:
    """Load the trained U-Net with its averaged weights, frozen and in evaluation mode."""
    unet = build_unet()
    unet.load_state_dict(load_average(work, CHECKPOINT))
    return unet.eval().requires_grad_(False)
