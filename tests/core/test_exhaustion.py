"""Memory or disk used up is told as that, in whatever words the libraries say it."""

import errno

import pytest
import torch

from core.run import explain


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError(
            "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."
        ),
        RuntimeError("CUDA error: out of memory\nCompile with `TORCH_USE_CUDA_DSA` to enable assertions.\n"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    ],
    ids=["python", "system", "allocator", "host", "driver", "cublas", "cudnn"],
)
@pytest.mark.parametrize("wrapped", [False, True], ids=["itself", "wrapped"])
def test_memory_used_up_is_explained_as_that(error: Exception, wrapped: bool) -> None:
    if wrapped:
        outer = ValueError("the weights cannot be read")
        outer.__cause__ = error
        error = outer
    explained = explain(error)
    assert explained.reason == "out_of_memory"
    assert "batch_size" in explained.hint


@pytest.mark.parametrize("words", ["unspecified launch failure", "CUBLAS_STATUS_EXECUTION_FAILED"])
def test_another_error_of_cuda_is_not_taken_for_used_up_memory(words: str) -> None:
    assert explain(RuntimeError(f"CUDA error: {words}")).reason == "internal_error"
