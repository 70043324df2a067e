"""Smaller micro-batches for a trainer that ran out of memory; the total batch stays, and so does the result.

Only the micro-batch can be made smaller without changing what a job learns: gradients of micro-batches add up
to that of the batch, whatever its parts.
"""

import math
from collections.abc import Mapping
from typing import Any


def samples_at_once(spec: Mapping[str, Any], processes: int) -> int:
    """Samples of the largest forward pass that one of the processes which share a batch makes."""
    training = spec["training"]
    largest_share: int = math.ceil(training["batch_size"] / processes)
    return min(training.get("micro_batch_size") or largest_share, largest_share)


def smaller_micro_batch(spec: Mapping[str, Any], processes: int) -> int | None:
    """Find the largest micro-batch of at most half of what is passed at once that still fills the batch.

    Parameters
    ----------
    spec
        A stored specification.
    processes
        How many share each batch: a micro-batch as large as their shares would change nothing.

    Returns
    -------
    int or None
        None for a pass of one sample, which has no half.
    """
    half, batch_size = samples_at_once(spec, processes) // 2, spec["training"]["batch_size"]
    return next((part for part in range(half, 0, -1) if batch_size % part == 0), None)


def with_micro_batch(spec: Mapping[str, Any], size: int | None) -> dict[str, Any]:
    """Return a specification with another micro-batch; None leaves it as it is."""
    if size is None:
        return dict(spec)
    return {**spec, "training": {**spec["training"], "micro_batch_size": size}}
