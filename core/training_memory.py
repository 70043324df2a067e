"""How much memory the training takes at its peak, counted from what it holds; free of torch."""

from core.device_rate import DeviceRate
from core.registry import TeacherInfo, part_parameters
from core.spec import DistillationSpec
from core.step_cost import training_sample_cost
from core.unet_layout import UNetLayout
from core.unet_memory import FLOAT32_BYTES, saved_bytes

COMPUTE_BYTES = {"float32": 4, "bfloat16": 2}
STUDENT_COPIES = 4  # weights, their average, and the optimiser's two moments


def training_memory(
    teacher: TeacherInfo,
    spec: DistillationSpec,
    theirs: UNetLayout,
    ours: UNetLayout,
    rate: DeviceRate | None,
) -> int:
    """Return the peak memory of the training.

    Held throughout: the teacher's parts, and of the student its weights, their average and both moments.
    Gradients come while the backward pass frees what the forward pass saved; over several micro-batches they
    are there from the second one on.
    """
    precision = spec.training.precision or (rate.precision if rate else "bfloat16")
    micro_batch = spec.training.micro_batch_size or spec.training.batch_size
    parts = sum(part_parameters(teacher).values())
    weights = FLOAT32_BYTES * (theirs.parameters + parts + STUDENT_COPIES * ours.parameters)
    gradients = FLOAT32_BYTES * ours.parameters
    at_once = micro_batch * training_sample_cost(spec.method).student_at_once
    saved = at_once * saved_bytes(ours, COMPUTE_BYTES[precision])
    if precision == "bfloat16":
        saved += COMPUTE_BYTES[precision] * ours.parameters  # autocast keeps its copies of the weights
    accumulates = micro_batch < spec.training.batch_size
    peak = saved + gradients if accumulates else max(saved, gradients)
    return weights + peak + (rate.process_bytes if rate else 0)
