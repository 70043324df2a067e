"""The real pictures a teacher was made from, as embeddings, to name what a drawing looks like.

A teacher's folder may hold ``references.safetensors`` (``embeddings``, one row a picture, by its evaluation
CLIP) and ``references.json`` (for each row its name and the captions that ask for it).

Axes: N references, M pictures, D embedding.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file


@dataclass(frozen=True)
class References:
    """Reference pictures.

    Attributes
    ----------
    embeddings_ND
        Unit embeddings.
    row_of_caption
        The reference that a caption asks for.
    """

    embeddings_ND: torch.Tensor
    row_of_caption: dict[str, int]

    def nearest_shares(
        self, embeddings_MD: torch.Tensor, captions: Sequence[str], among: Sequence[int] = (1, 5)
    ) -> dict[str, float]:
        """Return the shares of pictures whose own reference is the nearest one, or among the nearest few.

        Pictures whose caption asks for no reference are left out; without any other there is no share.
        """
        known = [place for place, caption in enumerate(captions) if caption in self.row_of_caption]
        if not known:
            return {}
        own_M = torch.tensor([self.row_of_caption[captions[place]] for place in known])
        similarity_MN = embeddings_MD[known].float().cpu() @ self.embeddings_ND.T
        own_similarity_M = similarity_MN.gather(1, own_M[:, None])
        rank_M = (similarity_MN > own_similarity_M).sum(dim=1)
        return {
            "nearest_pictures": len(known),
            **{f"nearest_top{count}": (rank_M < count).float().mean().item() for count in among},
        }


def load_references(folder: Path) -> References | None:
    """Load the references of a teacher's folder, or return None if it has none."""
    weights = folder / "references.safetensors"
    if not weights.is_file():
        return None
    embeddings = F.normalize(load_file(weights)["embeddings"].float(), dim=-1)
    named = json.loads((folder / "references.json").read_text(encoding="utf-8"))
    rows = {caption: row for row, reference in enumerate(named) for caption in reference["captions"]}
    return References(embeddings, rows)
