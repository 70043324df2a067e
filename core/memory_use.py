"""The most memory that this process has had so far, on the device that it computes on."""

import resource
import sys

import torch


def peak_memory_bytes(device: torch.device) -> int:
    """Return the most that was allocated on an accelerator; on a processor, the most that was resident."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return peak_resident_bytes()


def peak_resident_bytes() -> int:
    """Return the most memory of the host that this process has had, libraries and mapped files included."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
