"""The real pictures a teacher was made from, as embeddings, to name what a drawing looks like.

A teacher's folder may hold ``references.safetensors`` (``embeddings``, one row a picture, by its evaluation
CLIP) and ``references.json`` (for each row its name and the captions that ask for it).

Axes: N references, M pictures, D embedding.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from pydantic import BaseModel, TypeAdapter
from safetensors import SafetensorError
from safetensors.torch import load_file

from core.errors import BadTeacherError
from core.exhaustion import exhaustion

REFERENCE_FILES = ("references.safetensors", "references.json")
HINT = f"complete {' and '.join(REFERENCE_FILES)}, or take both away"


class _Description(BaseModel):
    captions: list[str]


DESCRIPTIONS = TypeAdapter(list[_Description])


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

    def ranks(self, embeddings_MD: torch.Tensor, captions: Sequence[str]) -> torch.Tensor:
        """Return for each picture, M, how many references it is nearer to than to its own; 0 is the best.

        NaN stands for a picture whose caption asks for no reference.
        """
        rank_M = torch.full((len(captions),), torch.nan)
        known = [place for place, caption in enumerate(captions) if caption in self.row_of_caption]
        if known:
            own_K = torch.tensor([self.row_of_caption[captions[place]] for place in known])
            similarity_KN = embeddings_MD[known] @ self.embeddings_ND.T
            own_similarity_K = similarity_KN.gather(1, own_K[:, None])
            rank_M[known] = (similarity_KN > own_similarity_K).sum(dim=1).float()
        return rank_M

    def probabilities(self, embeddings_MD: torch.Tensor, scale: float) -> torch.Tensor:
        """Return for each picture the probability of being each reference, MN, by scaled similarity."""
        return (scale * embeddings_MD @ self.embeddings_ND.T).softmax(dim=1)


def load_references(folder: Path) -> References | None:
    """Load the references of a teacher's folder, or return None if it has none.

    Raises
    ------
    BadTeacherError
        If one of the two files is missing or damaged, or they do not belong together.
    """
    weights, descriptions = (folder / name for name in REFERENCE_FILES)
    if not weights.is_file():
        return None
    try:
        embeddings_ND = F.normalize(load_file(weights)["embeddings"].float(), dim=-1)
        described = DESCRIPTIONS.validate_json(descriptions.read_bytes())
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise exhaustion(error) or BadTeacherError(
            f"the references of {folder.name} cannot be read: {error}", HINT
        ) from error
    if embeddings_ND.shape[:-1] != (len(described),):
        raise BadTeacherError(
            f"{folder.name} has embeddings of shape {list(embeddings_ND.shape)} "
            f"for {len(described)} references",
            HINT,
        )
    rows = {caption: row for row, reference in enumerate(described) for caption in reference.captions}
    return References(embeddings_ND, rows)
