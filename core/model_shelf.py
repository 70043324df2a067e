"""Models kept ready between two drawings, as many as fit a memory; the least recently used go first."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from torch import nn

from core.teacher import Teacher


@dataclass(frozen=True)
class Taken:
    """A model from the shelf, and the seconds that it took to load; 0 when it was there."""

    model: Any
    load_seconds: float


class ModelShelf:
    """Keeps teachers and U-Nets by keys that name their content.

    Parameters
    ----------
    max_bytes
        What their weights may take together once `tidy` has been called.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._models: OrderedDict[Hashable, Any] = OrderedDict()

    def take(self, key: Hashable, load: Callable[[], Any]) -> Taken:
        """Return a model, loaded if it is not there."""
        if key in self._models:
            self._models.move_to_end(key)
            return Taken(self._models[key], 0.0)
        began = perf_counter()
        self._models[key] = load()
        return Taken(self._models[key], perf_counter() - began)

    def tidy(self) -> None:
        """Let go of models until the rest fits."""
        sizes = {key: weight_bytes(model) for key, model in self._models.items()}
        surplus = sum(sizes.values()) - self._max_bytes
        for key, size in sizes.items():
            if surplus <= 0:
                return
            del self._models[key]
            surplus -= size

    def __len__(self) -> int:
        return len(self._models)


def weight_bytes(model: Teacher | nn.Module) -> int:
    """Return the bytes of a model's weights, of all parts of a teacher."""
    modules = model.modules() if isinstance(model, Teacher) else [model]
    return sum(weight.numel() * weight.element_size() for module in modules for weight in module.parameters())
