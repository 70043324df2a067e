"""Conditions keep the embeddings and the added tensors of a sample together."""

import torch
from torch import nn

from core.conditions import Conditions


def numbered(*samples: int) -> Conditions:
    """Conditions that hold their sample's number everywhere."""
    number_B = torch.tensor(samples, dtype=torch.float32)
    return Conditions(number_B[:, None, None].expand(-1, 3, 2), {"time_ids": number_B[:, None].expand(-1, 6)})


def numbers_of(conditions: Conditions) -> list[float]:
    embeddings_BLD, (name, added_BX) = conditions.embeddings_BLD, next(iter(conditions.added.items()))
    assert name == "time_ids"
    numbers = embeddings_BLD[:, 0, 0]
    assert torch.equal(embeddings_BLD, numbers[:, None, None].expand(-1, 3, 2))
    assert torch.equal(added_BX, numbers[:, None].expand(-1, 6))
    return numbers.tolist()


def test_samples_stay_whole_however_they_are_taken_apart_and_put_together() -> None:
    conditions = numbered(4, 5, 6)
    assert len(conditions) == 3
    assert numbers_of(conditions[torch.tensor([2, 0, 2])]) == [6, 4, 6]
    assert numbers_of(conditions[slice(1, 3)]) == [5, 6]
    assert numbers_of(numbered(7).expand(3)) == [7, 7, 7]
    assert numbers_of(Conditions.concatenate([numbered(1, 2), numbered(3)])) == [1, 2, 3]


def test_put_replaces_some_samples() -> None:
    conditions = numbered(4, 5, 6)[torch.arange(3)]
    conditions.put(torch.tensor([2, 0]), numbered(8, 9))
    assert numbers_of(conditions) == [9, 5, 8]


def test_the_size_is_that_of_all_tensors() -> None:
    assert numbered(1, 2).size_in_bytes == 2 * (3 * 2 + 6) * 4


def test_a_unet_is_told_everything_and_nothing_that_is_not_there() -> None:
    told = []

    class UNet(nn.Module):
        def forward(self, *inputs: torch.Tensor, **named: object) -> tuple[torch.Tensor]:
            told.append((inputs, named))
            return (inputs[0] + 1,)

    noisy, timestep, conditions = torch.zeros(1, 1, 2, 2), torch.tensor([3]), numbered(5)
    assert torch.equal(conditions.predict(UNet(), noisy, timestep), noisy + 1)
    Conditions(conditions.embeddings_BLD).predict(UNet(), noisy, timestep)
    (inputs, named), (_, bare) = told
    assert inputs == (noisy, timestep, conditions.embeddings_BLD)
    assert named == {"added_cond_kwargs": conditions.added, "return_dict": False}
    assert bare["added_cond_kwargs"] is None
