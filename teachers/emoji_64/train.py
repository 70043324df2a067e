"""Train the teacher: ``python -m teachers.emoji_64.train [STEP ...]``, each step resumable where it stopped.

Steps, in order: ``fetch``, ``tokenizer``, ``clip``, ``vae``, ``latents``, ``unet``,
``pipeline``, ``measure``. Under ``torchrun --nproc-per-node 2`` the VAE and the U-Net train with
one process a core.
"""

import argparse
from pathlib import Path

import rich
import torch
from transformers import CLIPTokenizer

from teachers.emoji_64 import clip, unet, vae
from teachers.emoji_64.concepts import fetch_packages, read_concepts
from teachers.emoji_64.measure import measure
from teachers.emoji_64.model_card import write_model_card
from teachers.emoji_64.pictures import PictureBook
from teachers.emoji_64.pipeline import text_encoder_of, write_pipeline
from teachers.emoji_64.tokenizer import train_tokenizer

HERE = Path(__file__).parent
STEPS = ("fetch", "tokenizer", "clip", "vae", "latents", "unet", "pipeline", "measure")


def main() -> None:
    """Run the chosen steps, all of them by default."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("steps", nargs="*", metavar="STEP", help=f"of {', '.join(STEPS)}; all by default")
    parser.add_argument("--data", type=Path, default=HERE / "data", help="where the packages are unpacked")
    parser.add_argument("--work", type=Path, default=HERE / "work", help="checkpoints of the recipe")
    parser.add_argument("--weights", type=Path, default=HERE / "weights", help="the pipeline folder to write")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if unknown := set(arguments.steps) - set(STEPS):
        parser.error(f"unknown step {', '.join(sorted(unknown))}; the steps are {', '.join(STEPS)}")
    for step in STEPS:
        if not arguments.steps or step in arguments.steps:
            run_step(step, arguments)


def run_step(step: str, arguments: argparse.Namespace) -> None:
    """Run one step on what the steps before it have left below the work folder."""
    data, work, weights, seed = arguments.data, arguments.work, arguments.weights, arguments.seed
    torch.set_flush_denormal(True)
    if step == "fetch":
        return fetch_packages(data)
    concepts = read_concepts(data)
    if step == "tokenizer":
        train_tokenizer(concepts).save_pretrained(work / "tokenizer")
        return None
    tokenizer = CLIPTokenizer.from_pretrained(work / "tokenizer")
    if step == "clip":
        return clip.train_clip(concepts, PictureBook(concepts), tokenizer, work, seed)
    concepts = [concept for concept in concepts if concept.is_drawn]
    if step == "unet":
        text_encoder = text_encoder_of(clip.load_clip(tokenizer, work))
        return unet.train_unet(concepts, tokenizer, text_encoder, work, seed)
    book = PictureBook(concepts)
    if step == "vae":
        return vae.train_vae(concepts, book, work, seed)
    if step == "latents":
        return unet.encode_pictures(concepts, book, vae.load_vae(work), work)
    if step == "pipeline":
        return write_pipeline(concepts, book, tokenizer, work, weights)
    quality = measure(concepts, book, weights, seed)
    rich.print(quality)
    return write_model_card(concepts, quality, weights)


if __name__ == "__main__":
    main()
