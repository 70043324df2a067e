"""The processes of one job, one an accelerator: the only module that knows of torch.distributed.

All ranks draw the very same batch of a step and take a share of its samples each; what they compute differs,
what they decide must not. So whatever decides a step - losses, wishes to stop - is agreed on here, in host
memory over gloo, which makes no rank wait for a device. Gradients travel by DDP.

A process that nobody launched among others is the only rank of its job, for which all of this is nothing.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import Self

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from core.errors import CoreError

LONGEST_WAIT = timedelta(days=3_650)
"""For an agreement: no limit that a job could meet, where gloo wants one.

While the first reads captions, draws, saves, evaluates or exports the others wait, and an evaluation may take
weeks. Of a process that dies they hear at once, by its closed connection; of a host, through torchrun.
"""

LONGEST_STEP = timedelta(hours=24)
"""For gradients, which all ranks send after an agreement: one that still waits then does so for nothing."""


@dataclass(frozen=True)
class Ranks:
    """One process among those of its job.

    Attributes
    ----------
    rank, count
        Which it is, and how many there are.
    local_rank
        Which it is on its host: the accelerator that it takes.
    group
        What agreements go through; None for the only rank.
    """

    rank: int = 0
    count: int = 1
    local_rank: int = 0
    group: dist.ProcessGroup | None = None

    @classmethod
    def join(cls, environ: Mapping[str, str]) -> Self:
        """Meet the other ranks that torchrun has launched, as it says in their environment."""
        count = int(environ.get("WORLD_SIZE", "1"))
        local_rank = int(environ.get("LOCAL_RANK", "0"))
        if torch.cuda.is_available():
            torch.cuda.set_device(local_rank)
        if count == 1:
            return cls(local_rank=local_rank)
        dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo", timeout=LONGEST_STEP)
        agreements = dist.new_group(backend="gloo", timeout=LONGEST_WAIT)
        return cls(dist.get_rank(), count, local_rank, agreements)

    @property
    def is_first(self) -> bool:
        """Whether this is the rank that writes."""
        return self.rank == 0

    @property
    def device(self) -> torch.device:
        """Where this rank computes."""
        return torch.device("cuda", self.local_rank) if torch.cuda.is_available() else torch.device("cpu")

    def share(self, size: int) -> slice:
        """Return this rank's rows of a batch; shares differ by one sample at most.

        Raises
        ------
        CoreError
            If some rank would have none.
        """
        if size < self.count:
            raise CoreError(
                f"a batch of {size} samples cannot be shared among {self.count} processes",
                "raise training.batch_size, or run fewer processes",
            )
        return slice(size * self.rank // self.count, size * (self.rank + 1) // self.count)

    def replicate(self, model: nn.Module, *, is_static: bool) -> nn.Module:
        """Return what a step calls for a model: itself, or with other ranks, what averages its gradients.

        Parameters
        ----------
        model
            Every one of its parameters takes part in every backward pass.
        is_static
            Whether a step is one forward and one backward pass on every rank. DDP's static graph is learnt
            from its first pass, whatever that is, and a pass of which the gradients only add up, or a second
            forward pass before the backward one, teaches it wrongly.
        """
        if self.group is None:
            return model
        device_ids = [self.local_rank] if torch.cuda.is_available() else None
        return DistributedDataParallel(
            model,
            device_ids=device_ids,
            gradient_as_bucket_view=True,
            static_graph=is_static,
        )

    def mean(self, values: torch.Tensor) -> torch.Tensor:
        """Return the means of the ranks' values in host memory, to the last bit the same on every rank."""
        values = values.cpu()
        if self.group is not None:
            dist.all_reduce(values, group=self.group)
            dist.broadcast(values, src=0, group=self.group)  # whatever order each rank has added up in
        return values / self.count

    def any(self, wish: bool) -> bool:
        """Tell every rank whether there is one that wishes."""
        if self.group is None:
            return wish
        wishes = torch.tensor([wish], dtype=torch.uint8)
        dist.all_reduce(wishes, dist.ReduceOp.MAX, group=self.group)
        return bool(wishes.item())

    def wait(self) -> None:
        """Wait until every rank is here."""
        if self.group is not None:
            dist.barrier(self.group)

    def leave(self) -> None:
        """Part from the others, after the last agreement."""
        if self.group is not None:
            dist.destroy_process_group()


ALONE = Ranks()


def adding_up(replica: nn.Module) -> AbstractContextManager[None]:
    """Context of a pass whose gradients stay with this rank, to be added to those of its step's last pass."""
    return replica.no_sync() if isinstance(replica, DistributedDataParallel) else nullcontext()
