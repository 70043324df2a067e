"""The caption grammar ``[small|large] NAME [on a COLOUR background]`` and what each caption asks to be drawn.

The caption space is far larger than the picture set, so that random conditioning has texts to draw
that no picture was ever made for.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from teachers.emoji_64.concepts import Concept

SIZES = ("", "small", "large")
SIZE_PROBABILITIES = (0.7, 0.15, 0.15)
DEFAULT_BACKGROUND = (255, 255, 255)
BACKGROUNDS: dict[str, tuple[int, int, int]] = {
    "red": (220, 40, 40),
    "orange": (250, 150, 30),
    "yellow": (255, 225, 60),
    "green": (60, 170, 75),
    "blue": (45, 105, 220),
    "purple": (135, 65, 190),
    "pink": (250, 150, 195),
    "brown": (125, 80, 50),
    "black": (20, 20, 20),
    "grey": (150, 150, 150),
}
COLOURS = ("", *BACKGROUNDS)
PLAIN_BACKGROUND_PROBABILITY = 0.6
NAME_PROBABILITY = 0.9


@dataclass(frozen=True)
class CaptionedPicture:
    """What to draw: indices into the concepts, `SIZES` and `COLOURS`, and the caption that says so."""

    concept: int
    size: int
    colour: int
    caption: str


def caption_text(name: str, size: str = "", colour: str = "") -> str:
    """Write one caption of the grammar."""
    article = "an" if colour and colour[0] in "aeiou" else "a"
    background = f"on {article} {colour} background" if colour else ""
    return " ".join(part for part in (size, name, background) if part)


def random_captioned_picture(
    rng: np.random.Generator, concepts: Sequence[Concept], concept: int
) -> CaptionedPicture:
    """Draw size, background and name of one concept with the training probabilities."""
    size = int(rng.choice(len(SIZES), p=SIZE_PROBABILITIES))
    plain = rng.random() < PLAIN_BACKGROUND_PROBABILITY
    colour = 0 if plain else int(rng.integers(1, len(COLOURS)))
    aliases = concepts[concept].aliases
    named = not aliases or rng.random() < NAME_PROBABILITY
    name = concepts[concept].name if named else aliases[int(rng.integers(len(aliases)))]
    return CaptionedPicture(concept, size, colour, caption_text(name, SIZES[size], COLOURS[colour]))


def every_caption(concepts: Sequence[Concept]) -> Iterator[str]:
    """Yield the bundled caption set: every concept by name in every size on every background."""
    for concept in concepts:
        for size in SIZES:
            for colour in COLOURS:
                yield caption_text(concept.name, size, colour)
