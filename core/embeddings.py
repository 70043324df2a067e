"""Caption embeddings for training: those that will be used often are kept, the others encoded when needed.

Which captions are kept depends on the job alone, never on what was used before, so that a resumed run sees
bit-identical embeddings.

Axes: B batch, K kept captions, L tokens, D width of a token.
"""

import numpy as np
import torch

from core.captions import CaptionSet
from core.teacher import Teacher

KEPT_BYTES = 1 << 30
ENCODED_AT_ONCE = 256


class CaptionEmbeddings:
    """Embeds captions by index.

    Parameters
    ----------
    teacher
        Encodes.
    captions
        The set that indices refer to; the index one past its last is the blank caption.
    kept
        Indices of the captions to encode now and keep on the device. The blank one is always kept.
    """

    def __init__(self, teacher: Teacher, captions: CaptionSet, kept: np.ndarray) -> None:
        self._teacher, self._captions = teacher, captions
        kept = np.append(kept, len(captions))
        self._row = torch.full((len(captions) + 1,), -1)
        self._row[torch.from_numpy(kept)] = torch.arange(len(kept))
        self._kept_KLD = torch.cat(
            [
                teacher.encode(captions.texts(kept[start : start + ENCODED_AT_ONCE]))
                for start in range(0, len(kept), ENCODED_AT_ONCE)
            ]
        )

    def __call__(self, caption_B: torch.Tensor) -> torch.Tensor:
        """Return the embeddings of captions, BLD."""
        row_B = self._row[caption_B]
        embeddings_BLD = self._kept_KLD[row_B.clamp(min=0).to(self._kept_KLD.device, non_blocking=True)]
        missing = (row_B < 0).nonzero()[:, 0]
        if len(missing):
            texts = self._captions.texts(caption_B[missing].tolist())
            embeddings_BLD[missing.to(embeddings_BLD.device, non_blocking=True)] = self._teacher.encode(texts)
        return embeddings_BLD


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
