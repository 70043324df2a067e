from pathlib import Path

import numpy as np
import pytest
import torch

from teachers.emoji_64.optimizer import MatrixOptimizer
from teachers.emoji_64.training import FitSettings, fit

SETTINGS = FitSettings(
    steps=7, learning_rate=1e-2, matrix_learning_rate=1e-2, warmup_steps=2, checkpoint_every=2
)


class InterruptionError(Exception):
    pass


def build_network() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.SiLU(), torch.nn.Flatten(), torch.nn.Linear(8 * 16, 2)
    )


def train(work: Path, interrupted_at: int | None = None) -> dict[str, torch.Tensor]:
    network, calls = build_network(), 0

    def batch_loss(rng: np.random.Generator, generator: torch.Generator) -> torch.Tensor:
        nonlocal calls
        calls += 1
        if calls == interrupted_at:
            raise InterruptionError
        pictures = torch.randn(4, 3, 4, 4, generator=generator)
        return (network(pictures) - float(rng.random())).square().mean()

    return fit("network", work, network, batch_loss, SETTINGS)


def test_an_interrupted_fit_ends_with_the_weights_of_one_that_was_not(tmp_path: Path) -> None:
    whole = train(tmp_path / "whole")
    with pytest.raises(InterruptionError):
        train(tmp_path / "resumed", interrupted_at=6)
    resumed = train(tmp_path / "resumed")
    for key, value in whole.items():
        torch.testing.assert_close(resumed[key], value, rtol=0, atol=0)


def test_a_convolution_takes_the_step_that_muon_gives_its_matrix() -> None:
    torch.manual_seed(0)
    convolution = torch.nn.Conv2d(4, 6, 3)
    matrix = torch.nn.Parameter(convolution.weight.detach().flatten(1).clone())
    muon = torch.optim.Muon([matrix], lr=3e-3, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    optimizer = MatrixOptimizer(dict(convolution.named_parameters()), 1e-3, 3e-3, weight_decay=0.1)
    for _ in range(3):
        gradient = torch.randn(6, 4, 3, 3)
        convolution.weight.grad, convolution.bias.grad = gradient, torch.zeros(6)
        matrix.grad = gradient.flatten(1)
        optimizer.step(1.0)
        muon.step()
    torch.testing.assert_close(convolution.weight.flatten(1), matrix, rtol=0, atol=0)


def test_without_a_rate_for_matrices_adamw_trains_everything() -> None:
    ours, theirs = build_network(), build_network()
    optimizer = MatrixOptimizer(dict(ours.named_parameters()), 1e-2, None, weight_decay=0.1)
    adamw = torch.optim.AdamW(theirs.parameters(), lr=1e-2, weight_decay=0.1)
    for network in (ours, theirs):
        network(torch.ones(2, 3, 4, 4)).square().mean().backward()
    optimizer.step(1.0)
    adamw.step()
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(one, other)
