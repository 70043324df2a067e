"""Which captions the teacher draws: chosen by the job's seed among those that are not held out."""

import numpy as np

from core.errors import BadCaptionsError
from core.randomness import derived_seed
from core.spec import DrawnByCount, DrawnByFraction


def choose_drawn(
    drawn: DrawnByCount | DrawnByFraction, count: int, held_out: np.ndarray, seed: int
) -> np.ndarray:
    """Return the indices, ascending, of the captions to draw.

    Parameters
    ----------
    drawn
        How many; a count larger than there are captions to draw means all of these.
    count
        Number of captions in the set.
    held_out
        Indices of those that must not be drawn, ascending.
    seed
        The job's seed.
    """
    drawable = count - len(held_out)
    if not drawable:
        raise BadCaptionsError("drawn.hold_out holds out every caption", "hold out fewer words")
    wanted = drawn.count if isinstance(drawn, DrawnByCount) else max(1, round(drawn.fraction * drawable))
    ranks = np.random.default_rng(derived_seed(seed, "drawn captions")).permutation(drawable)[:wanted]
    return np.sort(all_but(held_out, ranks))


def all_but(excluded: np.ndarray, ranks: np.ndarray) -> np.ndarray:
    """Return the numbers of these ranks, from 0, among the natural numbers without `excluded`, ascending."""
    smaller_numbers_left = excluded - np.arange(len(excluded))
    return ranks + np.searchsorted(smaller_numbers_left, ranks, side="right")
