"""A set of pictures that one model draws to be judged; what the judge says of them is kept on disk.

Judgements of a teacher's pictures lie in the cache, because they are the same for all its students; those of
a student in its job's folder.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from core.artist import Artist
from core.cache import cache_entry
from core.events import Progress
from core.files import replacing
from core.judges import Judge, Judgements, judge_identity
from core.stopping import StopRequest

FORMAT = 1
DRAWING = {"sampler", "steps", "guidance_scale", "batch_size", "features"}


@dataclass(frozen=True)
class PictureSet:
    """Pictures to be judged.

    Attributes
    ----------
    artist
        Draws.
    texts, seeds
        Caption and seed of each picture.
    path
        Where the judgements are kept; None where nobody will ask for them again.
    """

    artist: Artist
    texts: Sequence[str]
    seeds: Sequence[int]
    path: Path | None

    @property
    def is_judged(self) -> bool:
        """Whether the judgements are kept already."""
        return self.path is not None and self.path.exists()

    def judgements(self, judge: Judge, stop: StopRequest, progress: Progress | None = None) -> Judgements:
        """Return what the judge says, after drawing the pictures unless that has been done."""
        if self.path is not None and self.path.exists():
            return load_file(self.path)
        parts = list(self._judge_batches(judge, stop, progress))
        joined = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
        if self.path is not None:
            with replacing(self.path) as temporary:
                save_file(joined, temporary)
        return joined

    def _judge_batches(
        self, judge: Judge, stop: StopRequest, progress: Progress | None
    ) -> Iterator[Judgements]:
        size = self.artist.evaluation.batch_size
        for start in range(0, len(self.texts), size):
            stop.check()
            texts = self.texts[start : start + size]
            yield judge.look(self.artist.draw(texts, self.seeds[start : start + size]), texts)
            if progress is not None:
                progress.advance(len(texts))


def teacher_pictures(artist: Artist, texts: Sequence[str], seeds: Sequence[int], cache: Path) -> PictureSet:
    """Return a set that a teacher draws, whose judgements all jobs on this machine share.

    Parameters
    ----------
    artist
        The teacher, drawing with its own U-Net.
    texts, seeds
        Caption and seed of each picture.
    cache
        The cache's folder.
    """
    teacher = artist.teacher
    identity: dict[str, Any] = {
        "format": FORMAT,
        "teacher": teacher.info.revision,
        "precision": str(teacher.precision),
        "judge": judge_identity(teacher, artist.evaluation),
        "drawing": artist.evaluation.model_dump(mode="json", include=DRAWING),
        "pictures": hashlib.sha256(repr((list(texts), list(seeds))).encode()).hexdigest(),
    }
    folder = cache_entry(cache, "judgements", identity)
    return PictureSet(artist, texts, seeds, folder / "judgements.safetensors")
