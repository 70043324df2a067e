"""Fail a build whose torch cannot use its accelerator: ``python docker/check_accelerator.py cuda``.

A build for CPU that brings an accelerator's libraries works, and is only told of.
"""

import sys

CPU_WITH_LIBRARIES = (
    "This image is for CPU and holds an accelerator's libraries as well. It works; it would be several "
    "gigabytes smaller with the address of PyTorch's CPU builds as the build argument TORCH_INDEX_URL.\n"
)


def fault(accelerator: str, cuda: str | None) -> str | None:
    """Say what is wrong with a torch built for a release of CUDA, or for none."""
    if accelerator not in ("cpu", "cuda"):
        return f"ACCELERATOR is {accelerator!r}; cpu and cuda can be"
    if accelerator == "cuda" and cuda is None:
        return (
            "The installed torch is built for CPU only: the index that pip uses, or TORCH_INDEX_URL, offers "
            "no build for CUDA. Use another index, or build with ACCELERATOR=cpu."
        )
    return None


if __name__ == "__main__":
    import torch  # takes seconds, and the check of a test needs none of it

    if complaint := fault(sys.argv[1], torch.version.cuda):
        sys.exit(complaint)
    if sys.argv[1] == "cpu" and torch.version.cuda is not None:
        sys.stderr.write(CPU_WITH_LIBRARIES)
