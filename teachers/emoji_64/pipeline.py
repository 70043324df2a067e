"""Assembly of the teacher's folder: pipeline, evaluation CLIP, references, caption set."""

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from diffusers import PNDMScheduler, StableDiffusionPipeline
from safetensors.torch import save_file
from transformers import CLIPImageProcessor, CLIPModel, CLIPTextModel, CLIPTokenizer

from teachers.emoji_64.captions import CaptionedPicture, every_caption
from teachers.emoji_64.clip import load_clip
from teachers.emoji_64.concepts import Concept
from teachers.emoji_64.pictures import RESOLUTION, PictureBook
from teachers.emoji_64.unet import NOISE_SCHEDULE, load_unet
from teachers.emoji_64.vae import load_standardised_vae

MAX_SHARD_SIZE = "14MB"
EMBEDDING_BATCH = 64
CAPTIONS_FILE = "captions.txt"


def write_pipeline(
    concepts: Sequence[Concept], book: PictureBook, tokenizer: CLIPTokenizer, work: Path, weights: Path
) -> None:
    """Write the trained networks below `work` as float16 safetensors to the folder `weights`."""
    clip = load_clip(tokenizer, work)
    pipeline = assemble_pipeline(clip, tokenizer, work)
    pipeline.to(dtype=torch.float16)
    pipeline.save_pretrained(weights, max_shard_size=MAX_SHARD_SIZE)
    _declare_float32(weights / "text_encoder" / "config.json")
    _write_evaluation_clip(clip, weights / "evaluation_clip")
    _write_references(concepts, book, clip, weights)
    (weights / CAPTIONS_FILE).write_text("".join(f"{caption}\n" for caption in every_caption(concepts)))
    description = {
        "id": "emoji-64",
        "name": "Emoji 64: Stable Diffusion in miniature",
        "licence": "Apache-2.0",
        "caption_set": CAPTIONS_FILE,
    }
    (weights / "teacher.json").write_text(json.dumps(description, indent=2) + "\n")


def assemble_pipeline(clip: CLIPModel, tokenizer: CLIPTokenizer, work: Path) -> StableDiffusionPipeline:
    """Put the trained networks together, in float32."""
    return StableDiffusionPipeline(
        vae=load_standardised_vae(work),
        text_encoder=text_encoder_of(clip),
        tokenizer=tokenizer,
        unet=load_unet(work),
        scheduler=PNDMScheduler(
            **NOISE_SCHEDULE, skip_prk_steps=True, steps_offset=1, set_alpha_to_one=False
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def text_encoder_of(clip: CLIPModel) -> CLIPTextModel:
    """Copy the text tower of `clip` into a text encoder of its own."""
    encoder = CLIPTextModel(clip.config.text_config)
    encoder.load_state_dict(_text_tower(clip, encoder))
    return encoder.eval().requires_grad_(False)


def embed_pictures(clip: CLIPModel, pictures_BCHW: torch.Tensor) -> torch.Tensor:
    """Embed pictures in [-1, 1] with the image tower; unit length, shape (B, 128)."""
    with torch.no_grad():
        features = clip.get_image_features(pixel_values=pictures_BCHW).pooler_output
    return torch.nn.functional.normalize(features.float(), dim=-1)


def _text_tower(clip: CLIPModel, encoder: CLIPTextModel) -> dict[str, torch.Tensor]:
    prefix = "text_model." if any(k.startswith("text_model.") for k in encoder.state_dict()) else ""
    return {prefix + key: value for key, value in clip.text_model.state_dict().items()}


def _write_evaluation_clip(clip: CLIPModel, folder: Path) -> None:
    clip.half().save_pretrained(folder)
    clip.float()
    _declare_float32(folder / "config.json")
    CLIPImageProcessor(
        size={"shortest_edge": RESOLUTION},
        crop_size={"height": RESOLUTION, "width": RESOLUTION},
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    ).save_pretrained(folder)


def _write_references(concepts: Sequence[Concept], book: PictureBook, clip: CLIPModel, weights: Path) -> None:
    plain = [CaptionedPicture(index, 0, 0, concept.name) for index, concept in enumerate(concepts)]
    embeddings = [
        embed_pictures(clip, book.compose(plain[start : start + EMBEDDING_BATCH]))
        for start in range(0, len(plain), EMBEDDING_BATCH)
    ]
    save_file({"embeddings": torch.cat(embeddings).half()}, weights / "references.safetensors")
    names = [
        {
            "name": concept.name,
            "captions": [concept.name, *concept.aliases],
            "category": concept.category,
        }
        for concept in concepts
    ]
    (weights / "references.json").write_text(json.dumps(names, indent=0) + "\n")


def _declare_float32(config: Path) -> None:
    """Say that the network computes in float32, whatever its weights are stored in.

    transformers otherwise computes in the stored type, which differs from the U-Net's and the VAE's.
    """
    declared = json.loads(config.read_text()) | {"dtype": "float32"}
    for tower in ("text_config", "vision_config"):
        if tower in declared:
            declared[tower]["dtype"] = "float32"
    config.write_text(json.dumps(declared, indent=2) + "\n")
