"""Smaller micro-batches for a trainer that ran out of memory; the total batch stays, and so does the result.

Only the micro-batch can be made smaller without changing what a job learns: gradients of micro-batches add up
to that of the batch, whatever its parts.
"""

from collections.abc import Mapping
from typing import Any


def micro_batch_of(spec: Mapping[str, Any]) -> int:
    """Samples per forward pass that a stored specification asks for."""
    training = spec["training"]
    size: int = training.get("micro_batch_size") or training["batch_size"]
    return size


def smaller_micro_batch(spec: Mapping[str, Any]) -> int | None:
    """Find the largest micro-batch of at most half the size that still fills the batch.

    Returns
    -------
    int or None
        None for a micro-batch of one sample, which has no half.
    """
    size, batch_size = micro_batch_of(spec), spec["training"]["batch_size"]
    return next((part for part in range(size // 2, 0, -1) if batch_size % part == 0), None)


def with_micro_batch(spec: Mapping[str, Any], size: int | None) -> dict[str, Any]:
    """Return a specification with another micro-batch; None leaves it as it is."""
    if size is None:
        return dict(spec)
    return {**spec, "training": {**spec["training"], "micro_batch_size": size}}
