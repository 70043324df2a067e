"""How much memory the training takes at its peak, counted from what it holds; free of torch."""

from typing import Literal

from core.device_rate import DeviceRate
from core.feature_memory import feature_bytes
from core.method_spec import FeatureMatchingSpec
from core.spec import DistillationSpec
from core.step_cost import SampleCost, training_sample_cost, transfer_costs
from core.teacher_folder import TeacherInfo, part_parameters
from core.unet_layout import UNetLayout
from core.unet_memory import FLOAT32_BYTES, checkpointed_bytes, saved_bytes

COMPUTE_BYTES = {"float32": 4, "bfloat16": 2}
STUDENT_COPIES = 4  # weights, their average, and the optimiser's two moments


def training_memory(
    teacher: TeacherInfo,
    spec: DistillationSpec,
    theirs: UNetLayout,
    ours: UNetLayout,
    rate: DeviceRate | None,
) -> int:
    """Return the peak memory of the training, or of a round of the few-step transfer that takes more.

    That is what `unets_memory` counts, and the teacher's other parts. What a pass of the text encoders holds,
    1 GB for SDXL's, is gone before the gradients come, and less than those of any of SDXL's presets. Where it
    is the host's memory, the process itself takes some, and the weights that the student starts from are kept
    beside it until there is a checkpoint to go back to.

    A batch without micro-batches counts as one pass. Processes that share it pass less each, but how many
    there are is the worker's, and the estimate is made before there is one.
    """
    micro_batch = spec.training.micro_batch_size or spec.training.batch_size

    def step_memory(
        sample: SampleCost, earlier_students: int, features: FeatureMatchingSpec | None = None
    ) -> int:
        return unets_memory(
            theirs,
            ours,
            samples=micro_batch * sample.student_at_once,
            precision=spec.training.precision or (rate.precision if rate else "bfloat16"),
            gradient_checkpointing=spec.training.gradient_checkpointing,
            accumulates=micro_batch < spec.training.batch_size or sample.student > sample.student_at_once,
            earlier_students=earlier_students,
            features=features,
        )

    memory = step_memory(training_sample_cost(spec.method), 0, spec.method.features)
    for course in transfer_costs(spec.few_step):
        memory = max(memory, step_memory(course.sample, course.earlier_students))
    memory += FLOAT32_BYTES * sum(part_parameters(teacher).values())
    if rate and rate.process_bytes:
        memory += FLOAT32_BYTES * ours.parameters + rate.process_bytes
    return memory


def unets_memory(
    theirs: UNetLayout,
    ours: UNetLayout,
    *,
    samples: int,
    precision: Literal["float32", "bfloat16"],
    accumulates: bool,
    gradient_checkpointing: bool = False,
    earlier_students: int = 0,
    features: FeatureMatchingSpec | None = None,
) -> int:
    """Return the peak memory of a teacher's U-Net and of the student's in training.

    Held throughout: the teacher, and of the student its weights, their average and both moments. Gradients
    come while the backward pass frees what the forward pass saved; over several micro-batches, or parts of
    the loss, they are there from the second one on.

    Parameters
    ----------
    theirs, ours
        Layouts of the teacher and of the student.
    samples
        How many of them the student's forward pass saves tensors for at once.
    precision
        What the U-Nets compute in.
    accumulates
        Whether gradients are summed over several micro-batches or parts of the loss.
    gradient_checkpointing
        Whether what most modules save is computed again in the backward pass.
    earlier_students
        Students of before that are held as well.
    features
        What is matched inside; None for nothing.
    """
    copies = STUDENT_COPIES + earlier_students
    weights = FLOAT32_BYTES * (theirs.parameters + copies * ours.parameters)
    gradients = FLOAT32_BYTES * ours.parameters
    count = checkpointed_bytes if gradient_checkpointing else saved_bytes
    a_sample = count(ours, COMPUTE_BYTES[precision])
    if features is not None:
        a_sample += feature_bytes(theirs, ours, features, COMPUTE_BYTES[precision])
    saved = samples * a_sample
    if precision == "bfloat16":
        saved += COMPUTE_BYTES[precision] * ours.parameters  # autocast keeps its copies of the weights
    return weights + (saved + gradients if accumulates else max(saved, gradients))
