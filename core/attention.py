"""Which of torch's attention kernels a job uses."""

import math
from contextlib import AbstractContextManager, nullcontext

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from core.teacher import Teacher

SHORT_SEQUENCE = 1_024


def attention_kernels(teacher: Teacher) -> AbstractContextManager[None]:
    """Return a context in which attention runs in the kernel that suits a teacher and its students.

    On a CPU torch's fused kernel is slow in bfloat16, backwards above all: without it a training step of the
    bundled teacher's b-small student takes about 0.8 times as long (one core of an AMD EPYC with
    ``avx512_bf16``). What the fused kernel saves is memory, which longer sequences need.
    """
    longest_sequence = math.prod(teacher.latent_shape[1:])
    on_cpu, half = teacher.device.type == "cpu", teacher.precision == torch.bfloat16
    return (
        sdpa_kernel(SDPBackend.MATH)
        if on_cpu and half and longest_sequence <= SHORT_SEQUENCE
        else nullcontext()
    )
