"""Caption embeddings for training: those that will be used often are kept, the others encoded when needed.

Which captions are kept depends on the job alone, never on what was used before, so that a resumed run sees
bit-identical embeddings. Nothing here grows with the number of captions that are not kept.

Axes: B batch, K kept captions.
"""

import numpy as np
import torch

from core.captions import CaptionSet
from core.checkpoints import Origin
from core.conditions import Conditions
from core.teacher import Teacher

KEPT_BYTES = 1 << 30
ENCODED_AT_ONCE = 64
"""Captions of one pass through the text encoders, whatever the batch: SDXL's then hold 1 GB of states."""


class CaptionEmbeddings:
    """Embeds captions by index.

    Parameters
    ----------
    teacher
        Encodes.
    captions
        The set that indices refer to; the index one past its last is the blank caption.
    kept
        Indices, ascending, of the captions to encode now and keep on the device; the blank one always is.
    """

    def __init__(self, teacher: Teacher, captions: CaptionSet, kept: np.ndarray) -> None:
        self._teacher, self._captions = teacher, captions
        self._caption_K = torch.from_numpy(np.append(kept, len(captions)))
        self._kept_K = self._encode(self._caption_K)

    @property
    def origin(self) -> Origin:
        """What the embeddings follow from."""
        return Origin(captions=self._captions.content_hash, teacher=self._teacher.info.revision)

    def __call__(self, caption_B: torch.Tensor) -> Conditions:
        """Return the conditions of captions."""
        row_B = torch.searchsorted(self._caption_K, caption_B)  # the blank caption's index is the largest
        device = self._kept_K.embeddings_BLD.device
        conditions = self._kept_K[row_B.to(device, non_blocking=True)]
        missing = (self._caption_K[row_B] != caption_B).nonzero()[:, 0]
        if len(missing):
            conditions.put(missing.to(device, non_blocking=True), self._encode(caption_B[missing]))
        return conditions

    def _encode(self, caption_B: torch.Tensor) -> Conditions:
        parts = caption_B.split(ENCODED_AT_ONCE)
        return Conditions.concatenate(
            [self._teacher.encode(self._captions.texts(part.tolist())) for part in parts]
        )


def captions_to_keep(captions: CaptionSet, bytes_per_caption: int, replacements: float) -> np.ndarray:
    """Return which captions to keep: all, the drawn ones, or none.

    All are kept where they fit and the training is expected to use each of them once or more; otherwise the
    drawn ones, which every training uses over and over, where those fit.

    Parameters
    ----------
    captions
        The set.
    bytes_per_caption
        Size of one embedding.
    replacements
        How many captions random conditioning is expected to draw in the whole training.
    """
    room = KEPT_BYTES // bytes_per_caption
    if len(captions) <= min(room, replacements):
        return np.arange(len(captions))
    drawn = captions.drawn
    return drawn if len(drawn) <= room else drawn[:0]
