"""Memory or disk used up: how the libraries tell of it, each in its own way."""

import errno

import torch

from core.errors import CoreError, OutOfMemoryError, StorageFullError
from core.exit_status import FULL_DISK

# torch's CPU allocator has no class of its own, and safetensors tells of the system's errors in words alone.
# What CUDA and its libraries allocate past torch's allocator raises no `torch.OutOfMemoryError` either.
NO_MEMORY = (
    *("can't allocate memory", "Cannot allocate memory"),
    *("CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED"),
)
NO_SPACE = "No space left on device"


def exhaustion(error: Exception) -> CoreError | None:
    """Return in the user's terms that memory or disk is used up, if an error or one that led to it says so.

    Libraries wrap what they meet: diffusers takes any error while it reads weights for a damaged file.
    """
    cause: BaseException | None = error
    while cause is not None:
        if _is_out_of_memory(cause):
            return OutOfMemoryError(
                "the memory is used up",
                "lower training.micro_batch_size, latents.batch_size or evaluation.batch_size, "
                "or set training.gradient_checkpointing",
            )
        if _is_full_disk(cause):
            return StorageFullError("the disk is full", "free some space and run the job again")
        cause = cause.__cause__ or cause.__context__
    return None


def _is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, OSError) and error.errno == errno.ENOMEM:
        return True
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(
        words in str(error) for words in NO_MEMORY
    )


def _is_full_disk(error: BaseException) -> bool:
    return (isinstance(error, OSError) and error.errno in FULL_DISK) or NO_SPACE in str(error)
