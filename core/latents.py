"""The teacher's own pictures: drawn once for the drawn captions, kept as latents in memory-mapped shards.

Shards are named by content: the hash of everything that they follow from. Jobs share them through a cache
folder, and a run that was stopped goes on at the first shard that is missing. Batches begin anew with each
shard, so that a resumed run draws the same batches.

Axes: N pictures, B batch, C channels, H W height and width.
"""

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from core.cache import cache_entry
from core.captions import CaptionSet
from core.events import EventWriter, Progress
from core.files import replacing
from core.randomness import derived_seed
from core.ranks import ALONE, Ranks
from core.sampling import build_sampler, draw_latents
from core.spec import LatentsSpec
from core.stopping import StopRequest
from core.teacher import Teacher

FORMAT = 1
SHARD_PICTURES = 256


@dataclass(frozen=True)
class LatentSet:
    """The latents of the drawn captions.

    Attributes
    ----------
    shards
        Memory-mapped tensors of `shard_pictures` latents each; the last may have fewer.
    shard_pictures
        Latents in a full shard.
    caption_N
        Index of the caption that each picture was drawn for.
    """

    shards: list[torch.Tensor]
    shard_pictures: int
    caption_N: torch.Tensor

    def __len__(self) -> int:
        return len(self.caption_N)

    def gather(self, pictures_B: torch.Tensor) -> torch.Tensor:
        """Return the latents of these pictures, BCHW, as they are kept: float16."""
        places = (divmod(picture, self.shard_pictures) for picture in pictures_B.tolist())
        return torch.stack([self.shards[shard][row] for shard, row in places])


def prepare_latents(
    teacher: Teacher,
    captions: CaptionSet,
    spec: LatentsSpec,
    seed: int,
    cache: Path,
    events: EventWriter,
    stop: StopRequest,
    ranks: Ranks = ALONE,
) -> LatentSet:
    """Draw the latents that the cache does not hold yet, and open all of them.

    Parameters
    ----------
    teacher
        Draws.
    captions
        Its drawn captions get one picture each.
    spec, seed
        How to draw.
    cache
        Folder shared between jobs.
    events, stop
        Where to report, and whether to stop between two batches.
    ranks
        Each draws shards of its own, so that a shard holds the same batches whoever drew it.
    """
    drawn = captions.drawn
    identity = {
        "format": FORMAT,
        "teacher": teacher.info.revision,
        "captions": hashlib.sha256("\n".join(captions.texts(drawn)).encode()).hexdigest(),
        "sampler": spec.model_dump(mode="json"),
        "precision": str(teacher.precision),
        "seed": seed,
    }
    folder = cache_entry(cache, "latents", identity)

    shard_pictures = spec.batch_size * math.ceil(SHARD_PICTURES / spec.batch_size)
    files = [
        folder / f"shard-{shard:05d}.safetensors" for shard in range(math.ceil(len(drawn) / shard_pictures))
    ]
    held = sum(file.exists() for file in files) * shard_pictures
    progress = Progress(events, "latents", "pictures", len(drawn), done=min(held, len(drawn)))
    # By number, not by turns in a list of what is missing: other jobs draw too, and every rank looks alone.
    for shard in range(ranks.rank, len(files), ranks.count):
        if files[shard].exists():
            continue
        pictures = range(shard * shard_pictures, min((shard + 1) * shard_pictures, len(drawn)))
        latents = _draw_shard(teacher, captions, drawn, pictures, spec, seed, progress, stop, ranks.count)
        with replacing(files[shard]) as temporary:
            save_file({"latents": latents}, temporary)
    ranks.wait()
    progress.finish()
    shards = [load_file(file)["latents"] for file in files]
    return LatentSet(shards, shard_pictures, torch.from_numpy(drawn))


def _draw_shard(
    teacher: Teacher,
    captions: CaptionSet,
    drawn: np.ndarray,
    pictures: range,
    spec: LatentsSpec,
    seed: int,
    progress: Progress,
    stop: StopRequest,
    rank_count: int,
) -> torch.Tensor:
    sampler = build_sampler(spec.sampler, teacher.scheduler_config)
    latents_NCHW = torch.empty(len(pictures), *teacher.latent_shape, dtype=torch.float16)
    blank = teacher.encode([""])
    for start in range(0, len(pictures), spec.batch_size):
        stop.check()
        batch = pictures[start : start + spec.batch_size]
        latents_NCHW[start : start + len(batch)] = draw_latents(
            teacher.unet,
            teacher.encode(captions.texts(drawn[batch])),
            blank,
            [derived_seed(seed, "latents", picture) for picture in batch],
            sampler=sampler,
            steps=spec.steps,
            guidance_scale=spec.guidance_scale,
            precision=teacher.precision,
        )
        progress.advance(len(batch) * rank_count)  # the other ranks draw as fast
    return latents_NCHW
