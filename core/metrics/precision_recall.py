"""Precision, how many pictures look like real ones, and recall, how many real ones have a picture like them.

Each set's manifold is the union of balls around its samples, each as large as the distance to the sample's
k-th nearest neighbour in its own set.

Axes: N M samples, D feature.

References
----------
Kynkäänniemi et al., "Improved Precision and Recall Metric for Assessing Generative Models", NeurIPS 2019,
equations 1 and 2, with their k = 3.
"""

from collections.abc import Callable, Iterator

import numpy as np
from scipy.spatial.distance import cdist

NEIGHBOURS = 3
ROWS_AT_ONCE = 1_024


def inside_manifold(
    samples_ND: np.ndarray,
    manifold_MD: np.ndarray,
    neighbours: int = NEIGHBOURS,
    before_block: Callable[[], object] | None = None,
) -> np.ndarray:
    """Return for each sample, N, whether it lies in the manifold of a set.

    The mean over generated samples in the manifold of real ones is the precision; the mean over real samples
    in the manifold of generated ones the recall.

    Parameters
    ----------
    samples_ND
        What is asked about.
    manifold_MD
        The set, at least two samples; with fewer than k + 1 the farthest neighbour is taken.
    neighbours
        k.
    before_block
        Called before each block of rows, and may raise to give up.
    """
    samples, manifold = np.asarray(samples_ND, np.float64), np.asarray(manifold_MD, np.float64)
    k = min(neighbours, len(manifold) - 1)
    distances = (cdist(block, manifold) for block in _blocks(manifold, before_block))
    radius_M = np.concatenate([np.partition(block, k, axis=1)[:, k] for block in distances])  # 0 is itself
    distances = (cdist(block, manifold) for block in _blocks(samples, before_block))
    return np.concatenate([(block <= radius_M).any(axis=1) for block in distances])


def _blocks(rows: np.ndarray, before_block: Callable[[], object] | None) -> Iterator[np.ndarray]:
    for start in range(0, len(rows), ROWS_AT_ONCE):
        if before_block is not None:
            before_block()
        yield rows[start : start + ROWS_AT_ONCE]
