"""Metrics of the training loop: gathered on the device, read by the host only when they are reported."""

import math
import time

import torch

from core.events import EventWriter
from core.memory_use import peak_resident_bytes
from core.ranks import ALONE, Ranks


class RunningMetrics:
    """Means of the steps since the last report.

    Parameters
    ----------
    events
        Where to report.
    ranks
        Whose means are reported; they report at the same steps.
    """

    def __init__(self, events: EventWriter, ranks: Ranks = ALONE) -> None:
        self._events, self._ranks = events, ranks
        self._sums: dict[str, torch.Tensor] = {}
        self._steps, self._seconds, self._since = 0, 0.0, time.monotonic()

    def add(self, values: dict[str, torch.Tensor]) -> None:
        """Add the values of one step, without waiting for them; every step has the same ones."""
        self._sums = {name: self._sums.get(name, 0) + value for name, value in values.items()}
        self._steps += 1

    def pause(self) -> None:
        """Stop the clock while something else than training runs."""
        self._seconds += time.monotonic() - self._since

    def go_on(self) -> None:
        """Start the clock again."""
        self._since = time.monotonic()

    def report(self, step: int, batch_size: int, learning_rate: float) -> dict[str, float]:
        """Report the means, begin anew, and return them. Here the host waits for the device.

        What is not finite is reported as None.
        """
        means = self._ranks.mean(torch.stack(list(self._sums.values())) / self._steps).tolist()
        self.pause()
        named = dict(zip(self._sums, means, strict=True))
        values = {name: mean if math.isfinite(mean) else None for name, mean in named.items()}
        values["learning_rate"] = learning_rate
        values["samples_per_second"] = self._steps * batch_size / self._seconds
        if torch.cuda.is_available():
            values["accelerator_memory_bytes"] = float(torch.cuda.max_memory_allocated())
        else:
            values["process_memory_bytes"] = float(peak_resident_bytes())
        self._events.write("metrics", step=step, values=values)
        self._sums = {}
        self._steps, self._seconds = 0, 0.0
        self.go_on()
        return named
