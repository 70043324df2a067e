"""How much a job will take, before it starts: counted from configs and the specification; free of torch.

Parameters and the size of the student's weights are exact. Memory is counted from what the models, the
optimiser and the backward pass hold; time is the job's floating-point operations over the rates that a device
was measured at (`core.probe`). Text encoding, picture decoding, scoring and the few pictures of the sample
grids' first row are not counted: beside the passes through the U-Nets they take little in any but a tiny job.
"""

from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict

from core.device_rate import DeviceRate
from core.exported_size import exported_unet_bytes, safetensors_size
from core.hold_out import HoldOut
from core.shipped_index import shipped_weights
from core.spec import (
    DistillationSpec,
    DrawnByCount,
    DrawnByFraction,
    DrawnByText,
    EvaluationSpec,
    InlineCaptions,
    LatentsSpec,
    choose_student,
)
from core.step_cost import training_sample_cost, transfer_costs
from core.teacher_folder import TeacherInfo
from core.training_memory import STUDENT_COPIES, training_memory
from core.unet_layout import UNetLayout, unet_layout
from core.unet_memory import FLOAT32_BYTES
from core.weight_files import unet_dtype

BACKWARD_SHARE = 2  # of a forward pass's operations: gradients of the inputs, and of the weights
CHECKPOINTS_ON_DISK = 3  # two are kept, and the next is complete before the older one goes
GRID_PICTURES = 8


class Estimate(BaseModel):
    """What a job will take.

    Attributes
    ----------
    student
        Name of the student that will be trained.
    teacher_parameters, student_parameters
        Of the U-Nets.
    teacher_gmacs, student_gmacs
        Of one pass of one picture through the U-Net's linear and convolution layers.
    unet_bytes
        Size of the student's U-Net weights as exported.
    pipeline_bytes
        All weights of the exported folder: the U-Net in each precision and under each name, the other parts.
    checkpoint_bytes
        Disk that the checkpoints of the training and of the few-step transfer take.
    training_memory_bytes
        Peak memory of the training, or of the transfer if that takes more.
    drawn_pictures
        Pictures that the teacher draws to train on; None where that depends on a caption set of unknown size.
    flops
        Floating-point operations of each phase.
    seconds
        Time of each phase on a measured device; None without one.
    """

    model_config = ConfigDict(frozen=True)

    student: str
    teacher_parameters: int
    student_parameters: int
    teacher_gmacs: float
    student_gmacs: float
    unet_bytes: int
    pipeline_bytes: int
    checkpoint_bytes: int
    training_memory_bytes: int
    drawn_pictures: int | None
    flops: dict[str, float]
    seconds: dict[str, float] | None = None


@dataclass(frozen=True)
class _CaptionCounts:
    """How many captions are drawn, None where that is not known, and into how many splits they all fall."""

    drawn: int | None
    splits: int


def estimate_job(
    teacher: TeacherInfo,
    spec: DistillationSpec,
    rate: DeviceRate | None = None,
    caption_count: int | None = None,
) -> Estimate:
    """Estimate a job.

    Parameters
    ----------
    teacher
        Its teacher, of which configs and the headers of weight files are read.
    spec
        What it is asked for.
    rate
        What the device was measured at. Without it an accelerator is assumed, and no time is told.
    caption_count
        Size of the caption set. Where it is not known, drawing a fraction of it is not counted.

    Raises
    ------
    InvalidStudentError
        If the student does not fit the teacher.
    """
    choice = choose_student(teacher.unet_config, spec.student, teacher.prompt_tokens)
    theirs = unet_layout(teacher.unet_config, prompt_tokens=teacher.prompt_tokens)
    ours = unet_layout(choice.config, prompt_tokens=teacher.prompt_tokens)
    dtype = unet_dtype(teacher.path)
    unet_bytes = safetensors_size(ours, dtype)
    counts = _count_captions(spec, caption_count)
    forward, training = _operations(spec, theirs, ours, counts)
    phases = [phase for phase in ("latents", "training", "few_step", "evaluation") if forward.get(phase)]
    return Estimate(
        student=choice.describe()["name"],
        teacher_parameters=theirs.parameters,
        student_parameters=ours.parameters,
        teacher_gmacs=theirs.layer_multiply_accumulates / 1e9,
        student_gmacs=ours.layer_multiply_accumulates / 1e9,
        unet_bytes=unet_bytes,
        pipeline_bytes=exported_unet_bytes(ours, dtype, spec.export)
        + sum(file.stat().st_size for file in shipped_weights(teacher.path)),
        checkpoint_bytes=CHECKPOINTS_ON_DISK * _checkpoint_copies(spec) * FLOAT32_BYTES * ours.parameters,
        training_memory_bytes=training_memory(teacher, spec, theirs, ours, rate),
        drawn_pictures=counts.drawn,
        flops={phase: forward[phase] + training.get(phase, 0) for phase in phases},
        seconds=rate
        and {
            phase: forward[phase] / rate.forward_flops + training.get(phase, 0) / rate.training_flops
            for phase in phases
        },
    )


def _operations(
    spec: DistillationSpec, teacher: UNetLayout, student: UNetLayout, counts: _CaptionCounts
) -> tuple[dict[str, float], dict[str, float]]:
    """Return the operations of each phase in forward passes alone, and in passes that are trained."""
    theirs, ours = (2.0 * layout.multiply_accumulates for layout in (teacher, student))
    sample = training_sample_cost(spec.method)
    samples = spec.training.steps * spec.training.batch_size
    grids = spec.training.steps // spec.training.sample_every
    grid = GRID_PICTURES * ours * _unet_calls(spec.evaluation)
    forward = {
        "latents": (counts.drawn or 0) * _unet_calls(spec.latents) * theirs,
        "training": samples * (sample.teacher * theirs + sample.guide * ours) + grids * grid,
        "few_step": 0.0,
        "evaluation": _evaluation(spec, theirs, ours, counts.splits),
    }
    for phase, operations in _scores(spec, theirs, ours, counts.splits).items():
        forward[phase] += operations
    pass_of_student = ours * (1 + BACKWARD_SHARE + spec.training.gradient_checkpointing)
    trained = {"training": samples * sample.student * pass_of_student, "few_step": 0.0}
    for course in transfer_costs(spec.few_step):
        samples = course.steps * spec.training.batch_size
        forward["few_step"] += samples * (course.sample.teacher * theirs + course.sample.guide * ours)
        trained["few_step"] += samples * course.sample.student * pass_of_student
    return forward, trained


def _scores(spec: DistillationSpec, theirs: float, ours: float, splits: int) -> dict[str, float]:
    """Return the operations of the scores on the way by phase: the teacher draws twice, before the first."""
    every, steps = spec.evaluation.score_every, spec.training.steps
    if not every or spec.optimiser_steps < every:
        return {}
    pictures = splits * spec.evaluation.score_samples
    operations = {
        "training": steps // every * pictures * _unet_calls(spec.evaluation) * ours,
        "few_step": 0.0,
    }
    operations["training" if steps >= every else "few_step"] += (
        2 * pictures * _unet_calls(spec.evaluation) * theirs
    )
    if spec.few_step:
        for sampler_steps in spec.few_step.rounds:
            before, steps = steps, steps + spec.few_step.training_steps
            calls = _unet_calls(spec.round_drawing(sampler_steps))
            operations["few_step"] += (steps // every - before // every) * pictures * calls * ours
    return operations


def _evaluation(spec: DistillationSpec, theirs: float, ours: float, splits: int) -> float:
    """Return the operations of drawing every split: the teacher twice, the student once, at all steps."""
    evaluation = spec.evaluation
    calls_of_teacher, calls_of_student = 2 * _unet_calls(evaluation), _unet_calls(spec.student_drawing)
    for steps in evaluation.more_steps:
        fewer = {"steps": steps}
        calls_of_teacher += _unet_calls(evaluation.model_copy(update=fewer))
        calls_of_student += _unet_calls(spec.student_drawing.model_copy(update=fewer))
    return splits * evaluation.samples * (calls_of_teacher * theirs + calls_of_student * ours)


def _unet_calls(drawing: LatentsSpec | EvaluationSpec) -> int:
    """Return how often a sampler calls the U-Net for a picture; PNDM repeats its second step."""
    return (drawing.steps + (drawing.sampler == "pndm")) * (2 if drawing.guidance_scale > 1 else 1)


def _checkpoint_copies(spec: DistillationSpec) -> int:
    """Return how often a checkpoint holds what is as large as the student: once more with a guide."""
    return STUDENT_COPIES + any(course.sample.guide for course in transfer_costs(spec.few_step))


def _count_captions(spec: DistillationSpec, caption_count: int | None) -> _CaptionCounts:
    """Count captions as `core.captions` tells them apart, as far as that is known before they are read.

    Captions of a request are there to be looked at. Of others how many are held out is not known: they count
    as drawable, and as a split of their own.
    """
    hold_out = HoldOut(spec.drawn.hold_out)
    held_out, has_held_out = 0, bool(hold_out)
    if isinstance(spec.captions, InlineCaptions):
        texts = set(spec.captions.texts)
        if isinstance(spec.drawn, DrawnByText):
            texts |= set(spec.drawn.texts)
        caption_count, held_out = len(texts), sum(text in hold_out for text in texts)
        has_held_out = bool(held_out)
    drawable = None if caption_count is None else caption_count - held_out
    drawn = _drawn_count(spec.drawn, drawable)
    has_text_only = drawable is None or drawn is None or drawn < drawable
    return _CaptionCounts(drawn, 1 + has_text_only + has_held_out)


def _drawn_count(drawn: DrawnByCount | DrawnByFraction | DrawnByText, drawable: int | None) -> int | None:
    if isinstance(drawn, DrawnByText):
        return len(set(drawn.texts))
    if isinstance(drawn, DrawnByCount):
        return drawn.count if drawable is None else min(drawn.count, drawable)
    return None if drawable is None else max(1, round(drawn.fraction * drawable))
