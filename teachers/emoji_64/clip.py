"""The teacher's CLIP: text and vision towers trained contrastively on captions and pictures.

Its text tower becomes the pipeline's text encoder; the whole is kept as the evaluation CLIP.

References
----------
Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", ICML 2021.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

from teachers.emoji_64.captions import random_captioned_picture
from teachers.emoji_64.concepts import Concept
from teachers.emoji_64.pictures import RESOLUTION, PictureBook
from teachers.emoji_64.training import FitSettings, fit, load_average

CHECKPOINT = "clip"
HIDDEN_SIZE = 160
SETTINGS = FitSettings(steps=800, learning_rate=1.5e-3, weight_decay=0.05, ema_decay=0.99, warmup_steps=50)
CONCEPTS_PER_BATCH = 96
VARIANTS_PER_CONCEPT = 2
MAX_SHIFT_PIXELS = 4
MAX_NOISE = 0.15
BLUR_PROBABILITY = 0.5


def build_clip(tokenizer: CLIPTokenizer) -> CLIPModel:
    """Build the untrained CLIP for `tokenizer`'s vocabulary."""
    shape = {
        "hidden_size": HIDDEN_SIZE,
        "intermediate_size": 4 * HIDDEN_SIZE,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
    }
    text = shape | {
        "vocab_size": len(tokenizer),
        "max_position_embeddings": tokenizer.model_max_length,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    vision = shape | {"image_size": RESOLUTION, "patch_size": 16}
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=128))


def train_clip(
    concepts: Sequence[Concept], book: PictureBook, tokenizer: CLIPTokenizer, work: Path, seed: int
) -> None:
    """Train the CLIP; its checkpoint is left below `work`.

    Every batch holds each of its concepts twice, in another size or on another background, so that the
    towers must tell sizes and colours apart as well as concepts.
    """
    torch.manual_seed(seed)
    clip = build_clip(tokenizer).train()

    def batch_loss(rng: np.random.Generator, generator: torch.Generator) -> torch.Tensor:
        chosen = rng.choice(len(concepts), CONCEPTS_PER_BATCH, replace=False).repeat(VARIANTS_PER_CONCEPT)
        wanted = [random_captioned_picture(rng, concepts, int(concept)) for concept in chosen]
        pictures = augment(book.compose(wanted), generator)
        tokens = tokenizer([w.caption for w in wanted], padding=True, return_tensors="pt")
        similarity = clip(
            input_ids=tokens.input_ids, attention_mask=tokens.attention_mask, pixel_values=pictures
        ).logits_per_image
        # Two draws can ask for the very same picture: they share the target instead of repelling each other.
        looks = [(w.concept, w.size, w.colour) for w in wanted]
        same = torch.tensor([[a == b for b in looks] for a in looks], dtype=torch.float32)
        target = same / same.sum(dim=1, keepdim=True)
        return (F.cross_entropy(similarity, target) + F.cross_entropy(similarity.T, target)) / 2

    fit(CHECKPOINT, work, clip, batch_loss, SETTINGS)


def load_clip(tokenizer: CLIPTokenizer, work: Path) -> CLIPModel:
    """Load the trained CLIP with its averaged weights, frozen and in evaluation mode."""
    clip = build_clip(tokenizer)
    clip.load_state_dict(load_average(work, CHECKPOINT))
    return clip.eval().requires_grad_(False)


def augment(pictures_BCHW: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Shift, blur and noise pictures in [-1, 1]: the towers learn to tolerate a decoder's flaws."""
    B = pictures_BCHW.shape[0]
    padded = F.pad(pictures_BCHW, (MAX_SHIFT_PIXELS,) * 4, mode="replicate")
    shifts = torch.randint(0, 2 * MAX_SHIFT_PIXELS + 1, (B, 2), generator=generator).tolist()
    shifted = torch.stack(
        [
            picture[:, y : y + RESOLUTION, x : x + RESOLUTION]
            for picture, (y, x) in zip(padded, shifts, strict=True)
        ]
    )
    blurred = F.avg_pool2d(F.pad(shifted, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    blur = torch.rand(B, 1, 1, 1, generator=generator) < BLUR_PROBABILITY
    noise = torch.randn(shifted.shape, generator=generator)
    amount = MAX_NOISE * torch.rand(B, 1, 1, 1, generator=generator)
    return torch.where(blur, blurred, shifted) + amount * noise
