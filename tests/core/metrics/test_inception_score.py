import numpy as np
import pytest

from core.metrics.inception_score import inception_score


def test_clear_and_varied_pictures_score_the_number_of_classes() -> None:
    assert inception_score(np.eye(7)) == pytest.approx(7)


def test_pictures_that_are_all_alike_score_one() -> None:
    assert inception_score(np.tile([0.2, 0.5, 0.3], (6, 1))) == pytest.approx(1)


def test_equals_exp_of_the_entropies_difference() -> None:
    """The mean divergence from the marginal is H(marginal) - mean H(p)."""
    p = np.random.default_rng(0).dirichlet(np.ones(5), size=20)

    def entropy(values: np.ndarray) -> np.ndarray:
        return -(values * np.log(values)).sum(axis=-1)

    assert inception_score(p) == pytest.approx(np.exp(entropy(p.mean(axis=0)) - entropy(p).mean()))
