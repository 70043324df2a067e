"""A set of pictures that one model draws to be judged; what the judge says of them is kept in the cache.

Judgements lie there in shards, as latents do, so that whoever is stopped goes on at the first that is
missing, also in another attempt on the same machine. Those of a teacher's pictures serve all its students.
A shard holds whole batches, so that a resumed run draws the same ones.
"""

import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import UNet2DConditionModel
from safetensors.numpy import load_file, save_file

from core.artist import Artist
from core.cache import cache_entry
from core.events import Progress
from core.files import replacing
from core.judges import Judge, Judgements, judge_identity
from core.stopping import StopRequest

FORMAT = 1
SHARD_PICTURES = 256
WHOLE_FILE = "judgements.safetensors"  # as earlier releases kept a set
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
    folder
        Where the judgements are kept; None where nobody will ask for them again.
    """

    artist: Artist
    texts: Sequence[str]
    seeds: Sequence[int]
    folder: Path | None

    @property
    def judged_before(self) -> int:
        """How many of the pictures have judgements that are kept already."""
        if self.folder is None:
            return 0
        if (self.folder / WHOLE_FILE).exists():
            return len(self.texts)
        return sum(len(shard) for shard in self._shards() if self._file(self.folder, shard).exists())

    def judgements(self, judge: Judge, stop: StopRequest, progress: Progress | None = None) -> Judgements:
        """Return what the judge says, after drawing those pictures for which that is not kept."""
        if self.folder is not None and (self.folder / WHOLE_FILE).exists():
            return load_file(self.folder / WHOLE_FILE)
        return _join([self._judge_shard(shard, judge, stop, progress) for shard in self._shards()])

    def _shards(self) -> list[range]:
        size = self.artist.evaluation.batch_size
        step, count = size * math.ceil(SHARD_PICTURES / size), len(self.texts)
        return [range(start, min(start + step, count)) for start in range(0, count, step)]

    def _file(self, folder: Path, shard: range) -> Path:
        return folder / f"pictures-{shard.start:06d}-{shard.stop:06d}.safetensors"

    def _judge_shard(
        self, shard: range, judge: Judge, stop: StopRequest, progress: Progress | None
    ) -> Judgements:
        file = None if self.folder is None else self._file(self.folder, shard)
        if file is not None and file.exists():
            return load_file(file)
        judged = _join(list(self._judge_batches(shard, judge, stop, progress)))
        if file is not None:
            with replacing(file) as temporary:
                save_file(judged, temporary)
        return judged

    def _judge_batches(
        self, shard: range, judge: Judge, stop: StopRequest, progress: Progress | None
    ) -> Iterator[Judgements]:
        size = self.artist.evaluation.batch_size
        for start in range(shard.start, shard.stop, size):
            stop.check()
            batch = slice(start, min(start + size, shard.stop))
            texts = self.texts[batch]
            yield judge.look(self.artist.draw(texts, self.seeds[batch]), texts)
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
    folder = cache_entry(cache, "judgements", _identity(artist, texts, seeds))
    return PictureSet(artist, texts, seeds, folder)


def student_pictures(
    artist: Artist, weights_hash: str, texts: Sequence[str], seeds: Sequence[int], cache: Path
) -> PictureSet:
    """Return a set that a student draws, whose judgements later attempts on this machine find again.

    Parameters
    ----------
    artist
        The student.
    weights_hash
        That of its U-Net, by `hash_weights`.
    texts, seeds, cache
        As for `teacher_pictures`.
    """
    identity = _identity(artist, texts, seeds) | {"student": weights_hash}
    return PictureSet(artist, texts, seeds, cache_entry(cache, "judgements", identity))


def hash_weights(unet: UNet2DConditionModel) -> str:
    """Return the SHA-256 of a U-Net's config and weights."""
    config = {name: value for name, value in unet.config.items() if not name.startswith("_")}
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
    for name, weight in sorted(unet.state_dict().items()):
        digest.update(f"{name} {weight.dtype} {list(weight.shape)}".encode())
        digest.update(weight.contiguous().view(-1).view(torch.uint8).cpu().numpy())
    return digest.hexdigest()


def _identity(artist: Artist, texts: Sequence[str], seeds: Sequence[int]) -> dict[str, Any]:
    """Return what the judgements of pictures follow from, but for the U-Net of a student."""
    teacher = artist.teacher
    return {
        "format": FORMAT,
        "teacher": teacher.info.revision,
        "precision": str(teacher.precision),
        "judge": judge_identity(teacher, artist.evaluation),
        "drawing": artist.evaluation.model_dump(mode="json", include=DRAWING),
        "pictures": hashlib.sha256(repr((list(texts), list(seeds))).encode()).hexdigest(),
    }


def _join(parts: Sequence[Judgements]) -> Judgements:
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
