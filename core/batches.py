"""Training batches as a function of (seed, samples seen), so that a resumed run sees what it would have seen.

Nothing here waits for the device: what is drawn on the host is small, and noise is drawn where it is used.

Axes: B batch, C channels, H W height and width, K timesteps to choose from.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from core.conditioning import choose_captions
from core.conditions import Conditions
from core.embeddings import CaptionEmbeddings
from core.latents import LatentSet
from core.noise_process import NoiseProcess
from core.randomness import generator
from core.spec import MethodSpec

EVERYTHING = slice(None)


@dataclass(frozen=True)
class Batch:
    """Samples on the training device.

    Attributes
    ----------
    latents_BCHW
        Pictures x_0 that the teacher drew.
    noise_BCHW
        The noise ε to add to them.
    timestep_B
        How much of it: t in 0..T-1.
    conditions
        The captions, the same for teacher and student.
    matches_B
        Whether a sample's caption is its picture's own, or the blank one, which suits any.
    blank
        The condition of the blank caption.
    """

    latents_BCHW: torch.Tensor
    noise_BCHW: torch.Tensor
    timestep_B: torch.Tensor
    conditions: Conditions
    matches_B: torch.Tensor
    blank: Conditions

    def __len__(self) -> int:
        return len(self.timestep_B)

    def noisy(self, process: NoiseProcess) -> torch.Tensor:
        """Return x_t, BCHW."""
        return process.add_noise(self.latents_BCHW, self.noise_BCHW, self.timestep_B)

    def split(self, size: int) -> Iterator["Batch"]:
        """Yield the batch in parts of `size` samples."""
        for start in range(0, len(self.timestep_B), size):
            rows = slice(start, start + size)
            yield Batch(
                self.latents_BCHW[rows],
                self.noise_BCHW[rows],
                self.timestep_B[rows],
                self.conditions[rows],
                self.matches_B[rows],
                self.blank,
            )


@dataclass(frozen=True)
class BatchSource:
    """Makes batches.

    Attributes
    ----------
    latents
        The pictures.
    embeddings
        The captions, embedded.
    caption_count
        Size of the whole caption set.
    method
        Random conditioning and blanks.
    timesteps
        T, the length of the noise schedule.
    seed
        The job's seed.
    device
        Where batches go.
    timestep_K
        The timesteps to choose from; by default all T.
    """

    latents: LatentSet
    embeddings: CaptionEmbeddings
    caption_count: int
    method: MethodSpec
    timesteps: int
    seed: int
    device: torch.device
    timestep_K: torch.Tensor | None = None

    def batch(self, samples_seen: int, size: int, share: slice = EVERYTHING) -> Batch:
        """Return the batch of `size` samples that follows the first `samples_seen`, or a share of its rows.

        What is drawn for a sample does not depend on whose share it is in.
        """
        random = generator(self.seed, "batch", samples_seen)
        picture_B = self._pictures(samples_seen, size)
        # t is drawn before p(t) is applied to it, uniformly.
        timestep_K = torch.arange(self.timesteps) if self.timestep_K is None else self.timestep_K
        timestep_B = timestep_K[torch.randint(len(timestep_K), (size,), generator=random)]
        own_B = self.latents.caption_N[picture_B]
        caption_B = choose_captions(
            own_B, timestep_B / self.timesteps, self.caption_count, self.method, random
        )
        blank = self.caption_count
        matches_B = (caption_B == own_B) | (caption_B == blank)
        latents_BCHW = self._send(self.latents.gather(picture_B[share])).float()
        noise = generator(self.seed, "noise", samples_seen, device=self.device.type)
        noise_BCHW = torch.randn((size, *latents_BCHW.shape[1:]), generator=noise, device=self.device)
        return Batch(
            latents_BCHW,
            noise_BCHW[share],
            self._send(timestep_B[share]),
            self.embeddings(caption_B[share]),
            self._send(matches_B[share]),
            self.embeddings(torch.tensor([blank])),
        )

    def _send(self, values: torch.Tensor) -> torch.Tensor:
        """Copy to the device beside what it computes, which CUDA does from pinned memory alone."""
        if self.device.type == "cuda":
            values = values.pin_memory()
        return values.to(self.device, non_blocking=True)

    def _pictures(self, start: int, size: int) -> torch.Tensor:
        """Return pictures of an endless sequence that shuffles the set anew each time round."""
        N = len(self.latents)
        place_B = torch.arange(start, start + size)
        rounds = range(start // N, (start + size - 1) // N + 1)
        shuffled = torch.cat(
            [torch.randperm(N, generator=generator(self.seed, "order", count)) for count in rounds]
        )
        return shuffled[place_B - rounds.start * N]
