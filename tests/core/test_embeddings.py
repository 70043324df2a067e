"""Embeddings by index are those of the captions, whether kept or encoded when needed."""

from pathlib import Path

import numpy as np
import pytest
import torch

from core import embeddings
from core.captions import CaptionSet
from core.conditions import Conditions
from core.embeddings import CaptionEmbeddings, captions_to_keep
from core.teacher import Teacher, load_teacher
from core.teacher_folder import read_teacher
from tests.core.tiny_families import write_tiny_sdxl


class WithSizes:
    """A teacher whose U-Net takes something beside the captions' embeddings."""

    def __init__(self, teacher: Teacher) -> None:
        self._teacher = teacher
        self.encoded: list[int] = []

    def encode(self, prompts: list[str]) -> Conditions:
        self.encoded.append(len(prompts))
        lengths = torch.tensor([[float(len(prompt))] for prompt in prompts])
        return Conditions(self._teacher.encode(prompts).embeddings_BLD, {"lengths": lengths})


@pytest.mark.parametrize("kept", [[], [1, 4, 7], list(range(12))])
def test_embeddings_are_those_of_the_captions(
    teacher: Teacher, captions: CaptionSet, kept: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embeddings, "ENCODED_AT_ONCE", 3)
    encoding = WithSizes(teacher)
    embed = CaptionEmbeddings(encoding, captions, np.array(kept, np.int64))
    asked = torch.tensor([7, 12, 0, 11, 4, 7])  # 12 is the blank caption
    expected = WithSizes(teacher).encode(captions.texts(asked.tolist()))
    for _ in range(2):  # what was encoded for one batch must not stay in what is kept
        found = embed(asked)
        torch.testing.assert_close(found.embeddings_BLD, expected.embeddings_BLD, rtol=1e-4, atol=1e-5)
        assert torch.equal(found.added["lengths"], expected.added["lengths"])
        asked, expected = asked.flip(0), expected[torch.arange(5, -1, -1)]
    assert max(encoding.encoded) <= 3


def test_a_pass_of_the_text_encoders_is_of_so_many_captions_whatever_the_batch(
    captions: CaptionSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In parts as in one: to the bit where one part is enough, and else to a few units in the last place."""
    write_tiny_sdxl(tmp_path / "sdxl")
    teacher = load_teacher(read_teacher(tmp_path / "sdxl"), torch.device("cpu"))
    passes: list[int] = []
    for encoder in teacher.encode_prompts.text_encoders:
        encoder.register_forward_hook(lambda _, inputs, __: passes.append(len(inputs[0])))
    asked = torch.arange(200) % len(captions)
    whole = teacher.encode(captions.texts(asked.tolist()))
    passes.clear()
    embed = CaptionEmbeddings(teacher, captions, np.array([], np.int64))
    found = embed(asked)
    assert max(passes) == embeddings.ENCODED_AT_ONCE < len(asked)
    monkeypatch.setattr(embeddings, "ENCODED_AT_ONCE", len(asked))
    in_one = embed(asked)
    for name, part in {"": whole.embeddings_BLD, **whole.added}.items():
        parts, one = (made.added[name] if name else made.embeddings_BLD for made in (found, in_one))
        assert torch.equal(one, part)
        torch.testing.assert_close(parts, part, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("room", "replacements", "kept"),
    [(12, 12, list(range(12))), (12, 11, [0, 1, 2, 3, 4]), (11, 99, [0, 1, 2, 3, 4]), (4, 99, [])],
)
def test_what_is_kept_follows_from_room_and_use(
    captions: CaptionSet, monkeypatch: pytest.MonkeyPatch, room: int, replacements: float, kept: list[int]
) -> None:
    monkeypatch.setattr(embeddings, "KEPT_BYTES", 10 * room)
    assert captions_to_keep(captions, 10, replacements).tolist() == kept
