"""How well the teacher draws what its captions name: nearest real emoji, background colour, a grid."""

import json
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, DPMSolverMultistepScheduler, StableDiffusionPipeline
from PIL import Image, ImageDraw
from rich.progress import track
from safetensors.torch import load_file
from transformers import CLIPModel, CLIPTokenizer

from teachers.emoji_64.captions import (
    BACKGROUNDS,
    COLOURS,
    DEFAULT_BACKGROUND,
    caption_text,
    random_captioned_picture,
)
from teachers.emoji_64.concepts import Concept
from teachers.emoji_64.pictures import RESOLUTION, PictureBook
from teachers.emoji_64.pipeline import embed_pictures

SAMPLES = 256
BATCH_SIZE = 32
STEPS = 20
GUIDANCE_SCALE = 3.0
CORNER_PIXELS = 2
GRID_COLUMNS, GRID_ROWS = 16, 6
CELL_HEIGHT = RESOLUTION + 12


def measure(concepts: Sequence[Concept], book: PictureBook, weights: Path, seed: int) -> dict[str, float]:
    """Measure the pipeline in `weights`; writes ``quality.json`` and ``samples.png`` there.

    Returns
    -------
    dict
        ``top1`` and ``top5``: share of plain-name drawings whose nearest real emojis by the evaluation CLIP
        hold the named one; ``background``: share of drawings whose corners are nearest to the named colour;
        ``clip_top1`` and ``clip_top5``: share of names that find their real picture with the evaluation CLIP;
        ``psnr``: reconstruction by the VAE, in dB; ``seconds_per_image``: of 20 guided steps on this machine.
    """
    pipeline = StableDiffusionPipeline.from_pretrained(weights)
    pipeline.scheduler = DPMSolverMultistepScheduler.from_config(pipeline.scheduler.config)
    clip = CLIPModel.from_pretrained(weights / "evaluation_clip")
    references = load_file(weights / "references.safetensors")["embeddings"].float()
    rng = np.random.default_rng((seed, 1))

    chosen = rng.choice(len(concepts), SAMPLES, replace=len(concepts) < SAMPLES)
    names = [concepts[index].name for index in chosen]
    started = time.perf_counter()
    plain = draw(pipeline, names, first_seed=1_000_000)
    seconds = (time.perf_counter() - started) / SAMPLES
    top1, top5 = _hits(embed_pictures(clip, plain) @ references.T, chosen)

    colours = rng.integers(1, len(COLOURS), SAMPLES)
    coloured_captions = [
        caption_text(name, colour=COLOURS[colour]) for name, colour in zip(names, colours, strict=True)
    ]
    coloured = draw(pipeline, coloured_captions, first_seed=2_000_000)
    half = GRID_COLUMNS * GRID_ROWS // 2
    grid(torch.cat([plain[:half], coloured[:half]]), names[:half] + coloured_captions[:half]).save(
        weights / "samples.png"
    )

    every_name = embed_captions(clip, pipeline.tokenizer, [concept.name for concept in concepts])
    clip_top1, clip_top5 = _hits(every_name @ references.T, np.arange(len(concepts)))
    quality = {
        "samples": SAMPLES,
        "top1": top1,
        "top5": top5,
        "background": float((nearest_background(coloured) == colours).mean()),
        "clip_top1": clip_top1,
        "clip_top5": clip_top5,
        "psnr": reconstruction_psnr(pipeline.vae, concepts, book, rng),
        "seconds_per_image": seconds,
    }
    (weights / "quality.json").write_text(json.dumps(quality, indent=2) + "\n")
    return quality


def _hits(similarity: torch.Tensor, right: np.ndarray) -> tuple[float, float]:
    """Share of rows whose most similar column is the right one, and whose five most similar hold it."""
    hits = similarity.topk(5).indices.numpy() == right[:, None]
    return float(hits[:, 0].mean()), float(hits.any(axis=1).mean())


@torch.no_grad()
def embed_captions(clip: CLIPModel, tokenizer: CLIPTokenizer, captions: Sequence[str]) -> torch.Tensor:
    """Embed captions with the text tower; unit length, shape (B, 128)."""
    tokens = tokenizer(list(captions), padding=True, return_tensors="pt")
    return torch.nn.functional.normalize(clip.get_text_features(**tokens).pooler_output, dim=-1)


@torch.no_grad()
def reconstruction_psnr(
    vae: AutoencoderKL, concepts: Sequence[Concept], book: PictureBook, rng: np.random.Generator
) -> float:
    """Return the mean peak signal-to-noise ratio of `SAMPLES` pictures through the VAE, in dB."""
    chosen = rng.choice(len(concepts), SAMPLES)
    pictures = book.compose([random_captioned_picture(rng, concepts, int(index)) for index in chosen])
    decoded = torch.cat(
        [vae.decode(vae.encode(batch).latent_dist.mode()).sample for batch in pictures.split(BATCH_SIZE)]
    )
    squared_error_B = ((decoded.clamp(-1, 1) - pictures) / 2).square().mean(dim=(1, 2, 3))
    return (-10 * squared_error_B.log10()).mean().item()


def draw(pipeline: StableDiffusionPipeline, captions: Sequence[str], first_seed: int) -> torch.Tensor:
    """Draw one picture a caption, each from its own seed; float32 in [-1, 1], shape (B, 3, 64, 64)."""
    pipeline.set_progress_bar_config(disable=True)
    pictures = []
    for start in track(range(0, len(captions), BATCH_SIZE), f"drawing {len(captions)} pictures"):
        batch = list(captions[start : start + BATCH_SIZE])
        seeds = range(first_seed + start, first_seed + start + len(batch))
        pictures.append(
            pipeline(
                batch,
                num_inference_steps=STEPS,
                guidance_scale=GUIDANCE_SCALE,
                generator=[torch.Generator().manual_seed(seed) for seed in seeds],
                output_type="pt",
            ).images
        )
    return torch.cat(pictures) * 2 - 1


def nearest_background(pictures_BCHW: torch.Tensor) -> np.ndarray:
    """Index in `COLOURS` of the colour nearest to the median of each picture's corners; shape (B,)."""
    corners = torch.cat(
        [
            pictures_BCHW[:, :, rows, columns].flatten(2)
            for rows in (slice(CORNER_PIXELS), slice(-CORNER_PIXELS, None))
            for columns in (slice(CORNER_PIXELS), slice(-CORNER_PIXELS, None))
        ],
        dim=2,
    ).median(dim=2)
    palette = torch.tensor([DEFAULT_BACKGROUND, *BACKGROUNDS.values()], dtype=torch.float32) / 127.5 - 1
    return torch.cdist(corners.values, palette).argmin(dim=1).numpy()


def grid(pictures_BCHW: torch.Tensor, captions: Sequence[str]) -> Image.Image:
    """Lay pictures out in rows with their captions under them."""
    scale = 2
    sheet = Image.new("RGB", (GRID_COLUMNS * RESOLUTION * scale, GRID_ROWS * CELL_HEIGHT * scale), "white")
    pen = ImageDraw.Draw(sheet)
    pixels = ((pictures_BCHW.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
    for index, (picture, caption) in enumerate(zip(pixels, captions, strict=True)):
        x = index % GRID_COLUMNS * RESOLUTION * scale
        y = index // GRID_COLUMNS * CELL_HEIGHT * scale
        image = Image.fromarray(picture).resize((RESOLUTION * scale,) * 2, Image.Resampling.LANCZOS)
        sheet.paste(image, (x, y))
        pen.text((x + 2, y + RESOLUTION * scale + 2), caption[:24], fill="black")
    return sheet
