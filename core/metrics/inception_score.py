"""How distinct and how varied pictures are, by what a classifier says of each.

Axes: N pictures, K classes.

References
----------
Salimans et al., "Improved Techniques for Training GANs", NeurIPS 2016, section 4.
"""

import numpy as np
from scipy.special import xlogy


def inception_score(probability_NK: np.ndarray) -> float:
    """Return exp of the mean KL(p(y|x) ‖ p(y)): from 1, all alike, to K, all classes clear and as frequent.

    Parameters
    ----------
    probability_NK
        p(y|x), each row adding up to 1.
    """
    p = np.asarray(probability_NK, np.float64)
    marginal = p.mean(axis=0)
    return float(np.exp((xlogy(p, p) - xlogy(p, marginal)).sum(axis=1).mean()))
