"""Distances between sets of features by kernels: KID and CMMD, both a squared maximum mean discrepancy.

Unlike the Fréchet distance they take no distribution for a Gaussian, and KID does not depend on the number of
samples.

Axes: N M samples, D feature.

References
----------
Gretton et al., "A Kernel Two-Sample Test", JMLR 2012, lemma 6: the unbiased estimate (3), the biased one (5).
Bińkowski et al., "Demystifying MMD GANs", ICLR 2018: KID.
Jayasumana et al., "Rethinking FID: Towards a Better Evaluation Metric for Image Generation", CVPR 2024: CMMD.
"""

from collections.abc import Callable

import numpy as np

CMMD_WIDTH = 10.0
CMMD_SCALE = 1_000.0
ROWS_AT_ONCE = 2_048

Kernel = Callable[[np.ndarray, np.ndarray], np.ndarray]


def kernel_inception_distance(first_ND: np.ndarray, second_MD: np.ndarray) -> float:
    """Return KID: the unbiased estimate with the kernel (x·y / D + 1)³; it may be below zero."""
    N, M = len(first_ND), len(second_MD)
    first = _kernel_sum(_cubic, first_ND, first_ND) - _cubic_own(first_ND).sum()
    second = _kernel_sum(_cubic, second_MD, second_MD) - _cubic_own(second_MD).sum()
    across = _kernel_sum(_cubic, first_ND, second_MD)
    return first / (N * (N - 1)) + second / (M * (M - 1)) - 2 * across / (N * M)


def clip_mmd(first_ND: np.ndarray, second_MD: np.ndarray) -> float:
    """Return CMMD: 1000 times the biased estimate with the kernel exp(-|x - y|² / (2 · 10²)).

    Parameters
    ----------
    first_ND, second_MD
        Embeddings; they are brought to unit length, as published.
    """
    first, second = (
        features / np.linalg.norm(features, axis=1, keepdims=True)
        for features in (np.asarray(first_ND, np.float64), np.asarray(second_MD, np.float64))
    )
    within = [_kernel_sum(_gaussian, features, features) / len(features) ** 2 for features in (first, second)]
    across = _kernel_sum(_gaussian, first, second) / (len(first) * len(second))
    return CMMD_SCALE * (sum(within) - 2 * across)


def _cubic(x_ND: np.ndarray, y_MD: np.ndarray) -> np.ndarray:
    return (x_ND @ y_MD.T / x_ND.shape[1] + 1) ** 3


def _cubic_own(x_ND: np.ndarray) -> np.ndarray:
    """Return the kernel of each sample with itself."""
    return (np.square(np.asarray(x_ND, np.float64)).mean(axis=1) + 1) ** 3


def _gaussian(x_ND: np.ndarray, y_MD: np.ndarray) -> np.ndarray:
    squared = np.square(x_ND).sum(axis=1)[:, None] + np.square(y_MD).sum(axis=1) - 2 * x_ND @ y_MD.T
    return np.exp(-squared / (2 * CMMD_WIDTH**2))


def _kernel_sum(kernel: Kernel, x_ND: np.ndarray, y_MD: np.ndarray) -> float:
    """Return the sum over all pairs, a block of rows at a time to bound the memory."""
    x, y = np.asarray(x_ND, np.float64), np.asarray(y_MD, np.float64)
    blocks = (x[start : start + ROWS_AT_ONCE] for start in range(0, len(x), ROWS_AT_ONCE))
    return float(sum(kernel(block, y).sum() for block in blocks))
