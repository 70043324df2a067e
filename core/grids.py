"""Pictures of teacher and student side by side: a row for each model, a column for each prompt and seed."""

import textwrap
from collections.abc import Sequence

import torch
from PIL import Image, ImageDraw, ImageFont

from core.grid_layout import CAPTION_LINES, CELL, GAP, LABEL_WIDTH, LINE

CAPTION_CHARACTERS = 21
TITLE_HEIGHT = 26


def draw_grid(
    rows: Sequence[tuple[str, torch.Tensor]], captions: Sequence[str], title: str = ""
) -> Image.Image:
    """Lay pictures out with their captions.

    Parameters
    ----------
    rows
        For each row its label and its pictures, BCHW, uint8.
    captions
        Drawn under the columns.
    title
        Drawn above everything, if there is one.
    """
    columns = len(captions)
    top = TITLE_HEIGHT if title else GAP
    width = LABEL_WIDTH + columns * (CELL + GAP)
    height = top + len(rows) * (CELL + GAP) + CAPTION_LINES * LINE + GAP
    grid = Image.new("RGB", (width, height), "white")
    pen = ImageDraw.Draw(grid)
    font = ImageFont.load_default(size=11)
    if title:
        pen.text((GAP, GAP), title, "black", ImageFont.load_default(size=13))
    for row, (label, pictures) in enumerate(rows):
        y = top + row * (CELL + GAP)
        pen.multiline_text((GAP, y + CELL // 2 - LINE), label, "black", font)
        for column, picture in enumerate(pictures):
            grid.paste(_cell(picture), (LABEL_WIDTH + column * (CELL + GAP), y))
    y = top + len(rows) * (CELL + GAP)
    for column, caption in enumerate(captions):
        lines = textwrap.wrap(caption, CAPTION_CHARACTERS, max_lines=CAPTION_LINES, placeholder=" …")
        pen.multiline_text((LABEL_WIDTH + column * (CELL + GAP), y), "\n".join(lines), "black", font)
    return grid


def _cell(picture_CHW: torch.Tensor) -> Image.Image:
    picture = Image.fromarray(picture_CHW.permute(1, 2, 0).contiguous().numpy())
    return picture.resize((CELL, CELL), Image.Resampling.LANCZOS)
