"""Distances between sets of features by kernels: KID and CMMD, both a squared maximum mean discrepancy.

Unlike the Fréchet distance they take no distribution for a Gaussian, and KID does not depend on the number of
samples.

Axes: N M samples, D feature, B resamples.

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
BeforeBlock = Callable[[], object] | None


def kernel_inception_distance(first_ND: np.ndarray, second_MD: np.ndarray) -> float:
    """Return KID: the unbiased estimate with the kernel (x·y / D + 1)³; it may be below zero."""
    return float(_kid(first_ND, second_MD, _once(first_ND), _once(second_MD), None)[0])


def clip_mmd(first_ND: np.ndarray, second_MD: np.ndarray) -> float:
    """Return CMMD: 1000 times the biased estimate with the kernel exp(-|x - y|² / (2 · 10²)).

    Parameters
    ----------
    first_ND, second_MD
        Embeddings; they are brought to unit length, as published.
    """
    return float(_cmmd(first_ND, second_MD, _once(first_ND), _once(second_MD), None)[0])


def resampled_kid(
    first_ND: np.ndarray, second_ND: np.ndarray, times_BN: np.ndarray, before_block: BeforeBlock = None
) -> np.ndarray:
    """Return KID of every resample, B; the kernel of two samples is computed once for all of them.

    Parameters
    ----------
    first_ND, second_ND
        Features of as many samples, which are taken in pairs.
    times_BN
        How often each pair is taken.
    before_block
        Called before each block of rows, and may raise to give up.
    """
    return _kid(first_ND, second_ND, times_BN, times_BN, before_block)


def resampled_cmmd(
    first_ND: np.ndarray, second_ND: np.ndarray, times_BN: np.ndarray, before_block: BeforeBlock = None
) -> np.ndarray:
    """Return CMMD of every resample, B, as `resampled_kid` does KID."""
    return _cmmd(first_ND, second_ND, times_BN, times_BN, before_block)


def _kid(
    first_ND: np.ndarray,
    second_MD: np.ndarray,
    times_BN: np.ndarray,
    times_BM: np.ndarray,
    before_block: BeforeBlock,
) -> np.ndarray:
    N_B, M_B = times_BN.sum(axis=1), times_BM.sum(axis=1)
    first_B = _kernel_sums(_cubic, first_ND, first_ND, times_BN, times_BN, before_block)
    second_B = _kernel_sums(_cubic, second_MD, second_MD, times_BM, times_BM, before_block)
    across_B = _kernel_sums(_cubic, first_ND, second_MD, times_BN, times_BM, before_block)
    first_B -= times_BN @ _cubic_own(first_ND)
    second_B -= times_BM @ _cubic_own(second_MD)
    return first_B / (N_B * (N_B - 1)) + second_B / (M_B * (M_B - 1)) - 2 * across_B / (N_B * M_B)


def _cmmd(
    first_ND: np.ndarray,
    second_MD: np.ndarray,
    times_BN: np.ndarray,
    times_BM: np.ndarray,
    before_block: BeforeBlock,
) -> np.ndarray:
    N_B, M_B = times_BN.sum(axis=1), times_BM.sum(axis=1)
    first, second = _unit_length(first_ND), _unit_length(second_MD)
    first_B = _kernel_sums(_gaussian, first, first, times_BN, times_BN, before_block)
    second_B = _kernel_sums(_gaussian, second, second, times_BM, times_BM, before_block)
    across_B = _kernel_sums(_gaussian, first, second, times_BN, times_BM, before_block)
    return CMMD_SCALE * (first_B / N_B**2 + second_B / M_B**2 - 2 * across_B / (N_B * M_B))


def _once(samples_ND: np.ndarray) -> np.ndarray:
    return np.ones((1, len(samples_ND)), np.int64)


def _unit_length(features_ND: np.ndarray) -> np.ndarray:
    features = np.asarray(features_ND, np.float64)
    return features / np.linalg.norm(features, axis=1, keepdims=True)


def _cubic(x_ND: np.ndarray, y_MD: np.ndarray) -> np.ndarray:
    return (x_ND @ y_MD.T / x_ND.shape[1] + 1) ** 3


def _cubic_own(x_ND: np.ndarray) -> np.ndarray:
    """Return the kernel of each sample with itself."""
    return (np.square(np.asarray(x_ND, np.float64)).mean(axis=1) + 1) ** 3


def _gaussian(x_ND: np.ndarray, y_MD: np.ndarray) -> np.ndarray:
    squared = np.square(x_ND).sum(axis=1)[:, None] + np.square(y_MD).sum(axis=1) - 2 * x_ND @ y_MD.T
    return np.exp(-squared / (2 * CMMD_WIDTH**2))


def _kernel_sums(
    kernel: Kernel,
    x_ND: np.ndarray,
    y_MD: np.ndarray,
    times_BN: np.ndarray,
    times_BM: np.ndarray,
    before_block: BeforeBlock,
) -> np.ndarray:
    """Return the sums over all pairs, B, a block of rows at a time to bound the memory."""
    x, y = np.asarray(x_ND, np.float64), np.asarray(y_MD, np.float64)
    times_BN, times_BM = times_BN.astype(np.float64), times_BM.astype(np.float64)
    sums_B = np.zeros(len(times_BN))
    for start in range(0, len(x), ROWS_AT_ONCE):
        if before_block is not None:
            before_block()
        block = slice(start, start + ROWS_AT_ONCE)
        sums_B += np.vecdot(times_BN[:, block] @ kernel(x[block], y), times_BM)
    return sums_B
