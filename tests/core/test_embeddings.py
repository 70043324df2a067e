"""Embeddings by index are those of the captions, whether kept or encoded when needed."""

import numpy as np
import pytest
import torch

from core import embeddings
from core.captions import CaptionSet
from core.conditions import Conditions
from core.embeddings import CaptionEmbeddings, captions_to_keep
from core.teacher import Teacher


class WithSizes:
    """A teacher whose U-Net takes something beside the captions' embeddings."""

    def __init__(self, teacher: Teacher) -> None:
        self._teacher = teacher

    def encode(self, prompts: list[str]) -> Conditions:
        lengths = torch.tensor([[float(len(prompt))] for prompt in prompts])
        return Conditions(self._teacher.encode(prompts).embeddings_BLD, {"lengths": lengths})


@pytest.mark.parametrize("kept", [[], [1, 4, 7], list(range(12))])
def test_embeddings_are_those_of_the_captions(
    teacher: Teacher, captions: CaptionSet, kept: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embeddings, "ENCODED_AT_ONCE", 3)
    embed = CaptionEmbeddings(WithSizes(teacher), captions, np.array(kept, np.int64))
    asked = torch.tensor([7, 12, 0, 11, 4, 7])  # 12 is the blank caption
    expected = WithSizes(teacher).encode(captions.texts(asked.tolist()))
    for _ in range(2):  # what was encoded for one batch must not stay in what is kept
        found = embed(asked)
        torch.testing.assert_close(found.embeddings_BLD, expected.embeddings_BLD, rtol=1e-4, atol=1e-5)
        assert torch.equal(found.added["lengths"], expected.added["lengths"])
        asked, expected = asked.flip(0), expected[torch.arange(5, -1, -1)]


@pytest.mark.parametrize(
    ("room", "replacements", "kept"),
    [(12, 12, list(range(12))), (12, 11, [0, 1, 2, 3, 4]), (11, 99, [0, 1, 2, 3, 4]), (4, 99, [])],
)
def test_what_is_kept_follows_from_room_and_use(
    captions: CaptionSet, monkeypatch: pytest.MonkeyPatch, room: int, replacements: float, kept: list[int]
) -> None:
    monkeypatch.setattr(embeddings, "KEPT_BYTES", 10 * room)
    assert captions_to_keep(captions, 10, replacements).tolist() == kept
