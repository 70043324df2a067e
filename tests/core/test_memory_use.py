"""Memory of a computation: against tensors whose sizes are known, and the estimate of what a model saves."""

import pytest
import torch
from torch import nn

from core.memory_use import computation_memory_bytes

CPU = torch.device("cpu")
MIB = 1 << 20


def tensor(mebibytes: int) -> torch.Tensor:
    return torch.zeros(mebibytes, MIB // 4)


def test_the_height_counts_not_the_sum() -> None:
    def compute() -> torch.Tensor:
        first = tensor(1)
        second = first + 1  # both live
        del first
        third = torch.cat([second, second])  # 1 + 2
        del second
        return tensor(5).view(-1)[:1] + third[0, 0]  # 2 + 5, and a view that takes nothing

    assert computation_memory_bytes(compute, [], CPU) == pytest.approx(7 * MIB, abs=100)


def test_what_was_there_before_does_not_count_and_weights_do() -> None:
    model = nn.Sequential(nn.Linear(1024, 1024, bias=False), nn.BatchNorm1d(1024).eval())
    given = tensor(50)[:, :1024].contiguous()
    weights = 4 * (1024 * 1024 + 4 * 1024) + 8  # the norm's buffers too, one of them a single int64
    with torch.no_grad():
        needed = computation_memory_bytes(lambda: model(given), [model], CPU)
    assert needed == weights + 2 * given.nbytes  # the linear layer's output and the norm's


def test_weights_that_two_models_share_count_once() -> None:
    model = nn.Linear(100, 100, bias=False)
    assert computation_memory_bytes(lambda: None, [model, nn.Sequential(model)], CPU) == 4 * 100 * 100
