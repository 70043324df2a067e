"""A picture of a teacher and its student: the same prompts, the same seeds, the student under the teacher.

Run as ``python -m embedded.side_by_side`` with a request (`Request`) as JSON on standard input. It loads both
folders with nothing but diffusers, as any user of a student would, and imports nothing of ours.
"""

import statistics
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import diffusers
import torch
import transformers
from diffusers import DiffusionPipeline, DPMSolverMultistepScheduler
from PIL import Image, ImageDraw, ImageFont
from pydantic import BaseModel

CELL = 128
GAP = 8
LABEL_WIDTH = 84
TITLE_HEIGHT = 56
BAND_TITLE_HEIGHT = 26
CAPTION_HEIGHT = 44
CAPTION_CHARACTERS = 20
INK, PAPER, FAINT = "#1b1b1f", "white", "#6b6b75"


class Prompt(BaseModel):
    """A caption, and whether the teacher drew pictures of it for the student to learn from."""

    text: str
    drawn: bool


class Request(BaseModel):
    """What to draw and where to put it."""

    teacher: Path
    student: Path
    picture: Path
    prompts: list[Prompt]
    steps: int
    guidance_scale: float
    seed: int
    title: str


@dataclass(frozen=True)
class Drawings:
    """One model's pictures, a prompt each, with its size and its usual time for a picture."""

    pictures: list[Image.Image]
    parameters: int
    seconds: float

    def describe(self, name: str) -> str:
        """Write size and time for the title."""
        return f"{name}: {self.parameters / 1e6:.1f}M parameters, {self.seconds:.2f} s a picture"


def draw(folder: Path, request: Request) -> Drawings:
    """Draw every prompt alone, as a user would, so that the time is that of one picture."""
    # diffusers has no types for these two
    pipeline = DiffusionPipeline.from_pretrained(folder)  # type: ignore[no-untyped-call]
    pipeline.to(torch.float32)
    pipeline.scheduler = DPMSolverMultistepScheduler.from_config(  # type: ignore[no-untyped-call]
        pipeline.scheduler.config
    )
    pipeline.set_progress_bar_config(disable=True)
    pictures, times = [], []
    for number, prompt in enumerate(request.prompts):
        begin = perf_counter()
        drawn = pipeline(
            prompt.text,
            num_inference_steps=request.steps,
            guidance_scale=request.guidance_scale,
            generator=torch.Generator().manual_seed(request.seed + number),
        )
        times.append(perf_counter() - begin)
        pictures.append(drawn.images[0])
    parameters = sum(parameter.numel() for parameter in pipeline.unet.parameters())
    return Drawings(pictures, parameters, statistics.median(times))


def compose(request: Request, teacher: Drawings, student: Drawings) -> Image.Image:
    """Lay the pictures out: a band of drawn captions above a band of text-only ones."""
    bands = [
        ("captions that the teacher drew", [n for n, p in enumerate(request.prompts) if p.drawn]),
        ("captions that the student only read", [n for n, p in enumerate(request.prompts) if not p.drawn]),
    ]
    bands = [(title, numbers) for title, numbers in bands if numbers]
    columns = max(len(numbers) for _, numbers in bands)
    band_height = BAND_TITLE_HEIGHT + 2 * (CELL + GAP) + CAPTION_HEIGHT
    titles = (
        (f"{request.title}: same prompts, same seeds", 17),
        (f"{teacher.describe('teacher')}.  {student.describe('student')}.", 13),
    )
    widths = [ImageFont.load_default(size=points).getlength(text) for text, points in titles]
    width = max(LABEL_WIDTH + columns * (CELL + GAP), round(max(widths)) + GAP) + GAP
    sheet = Image.new("RGB", (width, TITLE_HEIGHT + len(bands) * band_height), PAPER)
    pen = ImageDraw.Draw(sheet)
    for line, (text, points) in enumerate(titles):
        _write(pen, (GAP, GAP + 24 * line), text, points)
    for band, (title, numbers) in enumerate(bands):
        top = TITLE_HEIGHT + band * band_height
        _write(pen, (GAP, top + 5), title, 13, FAINT)
        _draw_band(sheet, pen, top + BAND_TITLE_HEIGHT, numbers, request, (teacher, student))
    return sheet


def _draw_band(
    sheet: Image.Image,
    pen: ImageDraw.ImageDraw,
    top: int,
    numbers: Sequence[int],
    request: Request,
    models: tuple[Drawings, Drawings],
) -> None:
    for row, (label, model) in enumerate(zip(("teacher", "student"), models, strict=True)):
        y = top + row * (CELL + GAP)
        _write(pen, (GAP, y + CELL // 2 - 8), label, 14)
        for column, number in enumerate(numbers):
            picture = model.pictures[number].resize((CELL, CELL), Image.Resampling.LANCZOS)
            sheet.paste(picture, (LABEL_WIDTH + column * (CELL + GAP), y))
    for column, number in enumerate(numbers):
        lines = textwrap.wrap(request.prompts[number].text, CAPTION_CHARACTERS, max_lines=3)
        _write(pen, (LABEL_WIDTH + column * (CELL + GAP), top + 2 * (CELL + GAP) - 4), "\n".join(lines), 12)


def _write(pen: ImageDraw.ImageDraw, place: tuple[int, int], text: str, size: int, colour: str = INK) -> None:
    pen.multiline_text(place, text, colour, ImageFont.load_default(size=size), spacing=1)


def main() -> None:
    """Draw what standard input asks for."""
    for library in (diffusers, transformers):
        library.utils.logging.set_verbosity_error()
        library.utils.logging.disable_progress_bar()
    request = Request.model_validate_json(sys.stdin.read())
    teacher, student = draw(request.teacher, request), draw(request.student, request)
    partial = request.picture.with_suffix(".part")
    compose(request, teacher, student).save(partial, format="PNG")
    partial.replace(request.picture)


if __name__ == "__main__":
    main()
