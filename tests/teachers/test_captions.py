from pathlib import Path

import numpy as np
import pytest

from teachers.emoji_64.captions import (
    BACKGROUNDS,
    COLOURS,
    SIZES,
    caption_text,
    every_caption,
    random_captioned_picture,
)
from teachers.emoji_64.concepts import Concept


@pytest.fixture
def concepts() -> list[Concept]:
    nowhere = Path("nowhere.png")
    return [
        Concept("owl", ("wise",), "Animals & Nature", "animal-bird", nowhere),
        Concept("key", (), "Objects", "lock", nowhere),
    ]


@pytest.mark.parametrize(
    ("parts", "caption"),
    [
        (("owl",), "owl"),
        (("owl", "small"), "small owl"),
        (("owl", "", "blue"), "owl on a blue background"),
        (("owl", "large", "orange"), "large owl on an orange background"),
    ],
)
def test_captions_follow_the_grammar(parts: tuple[str, ...], caption: str) -> None:
    assert caption_text(*parts) == caption


def test_the_caption_set_holds_every_combination_once(concepts: list[Concept]) -> None:
    captions = list(every_caption(concepts))
    assert len(captions) == len(set(captions)) == 2 * 3 * 11


def test_a_drawn_caption_says_what_is_drawn(concepts: list[Concept]) -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        wanted = random_captioned_picture(rng, concepts, concept=0)
        names = {caption_text(name, SIZES[wanted.size], COLOURS[wanted.colour]) for name in ("owl", "wise")}
        assert wanted.caption in names


def test_backgrounds_can_be_told_apart() -> None:
    colours = np.array([(255, 255, 255), *BACKGROUNDS.values()], float)
    distances = np.linalg.norm(colours[:, None] - colours[None], axis=-1)
    assert distances[~np.eye(len(colours), dtype=bool)].min() > 60
