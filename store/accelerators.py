"""Classes of accelerators: what jobs wait for and workers offer, from the least to the greatest.

A class is a queue. A job waits in that of the least class whose memory holds its training; a worker serves
its own class and all lesser ones. So the great ones are never needed for what the small ones can do, and
never idle while that waits.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from store.errors import InvalidInputError

GIB = 2**30

NOMINAL_SHARE = 0.9
"""Least share of the memory of its class that an accelerator shows; error correction takes its part."""


@dataclass(frozen=True)
class AcceleratorClass:
    """One class.

    Attributes
    ----------
    name
        Also of its queue.
    memory_bytes
        Of one accelerator, or of the host where there is none; None where nobody counts it.
    """

    name: str
    memory_bytes: int | None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``name`` or ``name=GiB``.

        Raises
        ------
        ValueError
            If it is neither.
        """
        name, equals, gibibytes = (part.strip() for part in text.partition("="))
        try:
            memory = round(float(gibibytes) * GIB) if equals else None
        except ValueError:
            memory = 0
        if not name or memory == 0:
            raise ValueError(f"{text!r} is no class: write its name, or name=memory in GiB, as gpu-80gb=80")
        return cls(name, memory)

    def lack_of(self, is_accelerator: bool, memory_bytes: int | None) -> str | None:
        """Say what a device lacks to serve this class; None if nothing, as far as is known.

        Parameters
        ----------
        is_accelerator
            Whether it is one, or a processor, which serves the classes ``cpu`` and ``cpu-…`` alone.
        memory_bytes
            Of one accelerator, or of the host; None where it cannot be told.
        """
        if not is_accelerator and self.name.partition("-")[0] != "cpu":
            return f"{self.name} is a class of accelerators"
        if self.memory_bytes is None or memory_bytes is None:
            return None
        if memory_bytes < NOMINAL_SHARE * self.memory_bytes:
            return f"{self.name} is a class of {self.memory_bytes / GIB:.0f} GiB"
        return None

    def holds(self, memory_bytes: int) -> bool:
        """Tell whether a training of so much memory fits."""
        return self.memory_bytes is None or memory_bytes <= self.memory_bytes


def parse_classes(texts: Sequence[str]) -> list[AcceleratorClass]:
    """Read the classes of an installation, in their order."""
    return [AcceleratorClass.parse(text) for text in texts]


def least_class_for(classes: Sequence[AcceleratorClass], memory_bytes: int) -> AcceleratorClass:
    """Return the first class whose memory holds a training.

    Raises
    ------
    InvalidInputError
        If none does: no worker here could ever do the job.
    """
    for one in classes:
        if one.holds(memory_bytes):
            return one
    greatest = max(one.memory_bytes or 0 for one in classes)
    raise InvalidInputError(
        f"The training takes {memory_bytes / GIB:.1f} GiB at its peak, and no accelerator here has more than "
        f"{greatest / GIB:.1f}. Lower it, or choose a smaller student.",
        field="training.micro_batch_size",
    )


def lesser_queues(classes: Sequence[AcceleratorClass], queue: str) -> list[str]:
    """Return the queues that a worker of a class serves beside its own; none for one of no known class."""
    names = [one.name for one in classes]
    return names[: names.index(queue)] if queue in names else []
