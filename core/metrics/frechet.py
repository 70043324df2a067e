"""The Fréchet distance between two sets of features, each taken for a Gaussian.

References
----------
Heusel et al., "GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium", NeurIPS
2017, equation 6.
"""

import numpy as np


def frechet_distance(first_ND: np.ndarray, second_ND: np.ndarray) -> float:
    """Return the squared distance ``|μ1 - μ2|² + tr(Σ1 + Σ2 - 2 (Σ1 Σ2)^½)``, computed in float64.

    With X, Y the centred features over √(N - 1), so that Σ1 = XᵀX and Σ2 = YᵀY, the trace of (Σ1 Σ2)^½ is the
    sum of the singular values of X Yᵀ. That needs no square root of a matrix, and holds where the covariances
    are singular because there are fewer samples than dimensions.
    """
    first, second = np.asarray(first_ND, np.float64), np.asarray(second_ND, np.float64)
    mean_gap = first.mean(axis=0) - second.mean(axis=0)
    X, Y = _triangular_factor(first), _triangular_factor(second)
    shared = np.linalg.svd(X @ Y.T, compute_uv=False).sum()
    return float(mean_gap @ mean_gap + np.square(X).sum() + np.square(Y).sum() - 2 * shared)


def _triangular_factor(features_ND: np.ndarray) -> np.ndarray:
    """Return R with RᵀR the covariance, of at most D rows however many samples there are."""
    centred = features_ND - features_ND.mean(axis=0)
    return np.linalg.qr(centred / np.sqrt(len(features_ND) - 1), mode="r")
