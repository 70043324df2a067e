"""Pictures of concepts: an emoji composed at one of three sizes over a plain background, 64x64 RGB."""

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image

from teachers.emoji_64.captions import BACKGROUNDS, DEFAULT_BACKGROUND, SIZES, CaptionedPicture
from teachers.emoji_64.concepts import Concept

RESOLUTION = 64
PIXELS_BY_SIZE = {"": 52, "small": 36, "large": 64}


class PictureBook:
    """All concepts at all sizes with their transparency, ready to be composed over a background.

    Parameters
    ----------
    concepts
        The concepts to read; N of them.

    Attributes
    ----------
    layers_SNHWC
        Premultiplied RGBA of every size and concept, uint8, shape (3, N, 64, 64, 4).
    """

    def __init__(self, concepts: Sequence[Concept]) -> None:
        self.layers_SNHWC = np.zeros((len(SIZES), len(concepts), RESOLUTION, RESOLUTION, 4), np.uint8)
        for index, concept in enumerate(concepts):
            with Image.open(concept.picture) as picture:
                premultiplied = picture.convert("RGBA").convert("RGBa")
            for size, size_name in enumerate(SIZES):
                pixels = PIXELS_BY_SIZE[size_name]
                start = (RESOLUTION - pixels) // 2
                resized = premultiplied.resize((pixels, pixels), Image.Resampling.LANCZOS)
                self.layers_SNHWC[size, index, start : start + pixels, start : start + pixels] = resized
        self._backgrounds = np.array([DEFAULT_BACKGROUND, *BACKGROUNDS.values()], np.float32)

    def compose(self, wanted: Sequence[CaptionedPicture]) -> torch.Tensor:
        """Compose pictures; returns float32 of shape (B, 3, 64, 64) in [-1, 1]."""
        sizes = [picture.size for picture in wanted]
        concepts = [picture.concept for picture in wanted]
        layers = self.layers_SNHWC[sizes, concepts].astype(np.float32)
        colours = self._backgrounds[[picture.colour for picture in wanted]][:, None, None, :]
        pixels = layers[..., :3] + colours * (1 - layers[..., 3:] / 255)
        return torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous() / 127.5 - 1
