"""The most memory that something has needed: this process so far, or one computation."""

import resource
import sys
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


def peak_memory_bytes(device: torch.device) -> int:
    """Return the most that was allocated on an accelerator; on a processor, the most that was resident."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return peak_resident_bytes()


def peak_resident_bytes() -> int:
    """Return the most memory of the host that this process has had, libraries and mapped files included."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def computation_memory_bytes(
    compute: Callable[[], object], models: Iterable[nn.Module], device: torch.device
) -> int:
    """Return the most memory that a computation needs: its models' weights, and all tensors at its height.

    What else the process holds is not counted, so that two models can be compared side by side. On a
    processor the tensors are counted, not what operations use inside.

    Parameters
    ----------
    compute
        Does it once.
    models
        What it computes with.
    device
        Where it does.
    """
    weights = _storages(chain.from_iterable((*each.parameters(), *each.buffers()) for each in models))
    held = sum(storage.nbytes() for storage in weights.values())
    if device.type == "cuda":
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        compute()
        return held + torch.cuda.max_memory_allocated(device) - before
    with _TensorCount(weights) as count:
        compute()
    return held + count.peak


class _TensorCount(TorchDispatchMode):
    """Counts the bytes of the tensors that operations make, for as long as they live."""

    def __init__(self, known: Iterable[int]) -> None:
        super().__init__()
        self.peak = self._now = 0
        self._seen = set(known)

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        made = (leaf for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor))
        for key, storage in _storages(made).items():
            if key not in self._seen:
                self._add(key, storage)
        return result

    def _add(self, key: int, storage: torch.UntypedStorage) -> None:
        size = storage.nbytes()
        self._seen.add(key)
        self._now += size
        self.peak = max(self.peak, self._now)
        weakref.finalize(storage, self._free, key, size)

    def _free(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self._now -= size


def _storages(tensors: Iterable[torch.Tensor]) -> dict[int, torch.UntypedStorage]:
    """Return what tensors lie in, by what tells one storage from all others that live."""
    storages = (tensor.untyped_storage() for tensor in tensors)
    return {storage._cdata: storage for storage in storages}
