"""All randomness of a job, as a function of its seed.

A random number depends on the job's seed, on what it is for and on where in the work it is used, never on
what ran before it. A resumed run therefore draws what an uninterrupted one would have drawn, with no
generator state to save.
"""

import hashlib

import torch


def derived_seed(seed: int, purpose: str, *position: int | str) -> int:
    """Return a 63-bit seed for one purpose at one position of a job."""
    digest = hashlib.sha256(repr((seed, purpose, *position)).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def generator(seed: int, purpose: str, *position: int | str, device: str = "cpu") -> torch.Generator:
    """Return a torch generator for one purpose at one position of a job."""
    return torch.Generator(device).manual_seed(derived_seed(seed, purpose, *position))
