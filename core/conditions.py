"""What a U-Net is told of the captions: their embeddings, and whatever else its family takes with them.

Axes: B batch, L tokens, D width of a token.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch


@dataclass(frozen=True)
class Conditions:
    """One condition a sample, as a teacher encodes captions.

    Attributes
    ----------
    embeddings_BLD
        The captions' tokens, which cross-attention reads.
    added
        What else the U-Net takes, by diffusers' names (``added_cond_kwargs``), each with B as its first axis;
        empty for families that take nothing else.
    """

    embeddings_BLD: torch.Tensor
    added: dict[str, torch.Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.embeddings_BLD)

    @property
    def size_in_bytes(self) -> int:
        """Bytes of all tensors."""
        return sum(part.nbytes for part in (self.embeddings_BLD, *self.added.values()))

    def __getitem__(self, rows: torch.Tensor | slice) -> "Conditions":
        """Return the conditions of some of the samples."""
        return Conditions(self.embeddings_BLD[rows], {name: part[rows] for name, part in self.added.items()})

    def put(self, rows: torch.Tensor, conditions: "Conditions") -> None:
        """Replace the conditions of some of the samples, in place."""
        self.embeddings_BLD[rows] = conditions.embeddings_BLD
        for name, part in self.added.items():
            part[rows] = conditions.added[name]

    def expand(self, count: int) -> "Conditions":
        """Return a single condition repeated, without copying it."""
        parts = {name: part.expand(count, *part.shape[1:]) for name, part in self.added.items()}
        return Conditions(self.embeddings_BLD.expand(count, *self.embeddings_BLD.shape[1:]), parts)

    @staticmethod
    def concatenate(parts: Sequence["Conditions"]) -> "Conditions":
        """Return several conditions as one batch."""
        added = {name: torch.cat([part.added[name] for part in parts]) for name in parts[0].added}
        return Conditions(torch.cat([part.embeddings_BLD for part in parts]), added)

    def predict(
        self, unet: torch.nn.Module, noisy_BCHW: torch.Tensor, timestep_B: torch.Tensor
    ) -> torch.Tensor:
        """Return what a diffusers U-Net predicts under these conditions."""
        return unet(
            noisy_BCHW,
            timestep_B,
            self.embeddings_BLD,
            added_cond_kwargs=self.added or None,
            return_dict=False,
        )[0]
