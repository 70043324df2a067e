"""The kernel that attention runs in."""

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch.profiler import ProfilerActivity, profile

from core.attention import attention_kernels
from core.teacher import Teacher


def kernels_of(teacher: Teacher) -> set[str]:
    query = torch.randn(1, 2, 16, 8)
    with profile(activities=[ProfilerActivity.CPU]) as profiled, attention_kernels(teacher):
        F.scaled_dot_product_attention(query, query, query)
    return {event.name for event in profiled.events() if "scaled_dot_product" in event.name}


def test_short_sequences_in_bfloat16_on_a_cpu_do_without_the_fused_kernel(teacher: Teacher) -> None:
    half = replace(teacher, precision=torch.bfloat16)
    assert any("flash" in name for name in kernels_of(teacher))
    assert not any("flash" in name for name in kernels_of(half))
