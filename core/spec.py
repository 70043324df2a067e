"""The specification of one distillation job: what a user asks for, with every default resolved.

A specification is immutable once accepted and is stored as JSON. This module and everything it imports is
free of torch, because the API process validates specifications and has no torch in it.
"""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from core.caption_sources import (
    MAX_CAPTION_CHARACTERS,
    NO_NUL,
    BundledCaptions,
    Caption,
    CaptionLimits,
    CaptionSource,
    DrawnByCount,
    DrawnByFraction,
    DrawnByText,
    FileCaptions,
    HubCaptions,
    InlineCaptions,
    S3Captions,
    UploadedCaptions,
)
from core.errors import BadCaptionsError, BadTeacherError, InvalidStudentError, UnknownTeacherError
from core.few_step_spec import FewStepSpec
from core.method_spec import FeatureMatchingSpec, MethodSpec, RandomConditioningSpec
from core.registry import find_teacher, list_teachers
from core.spec_model import SpecModel
from core.student_choice import choose_student
from core.students import (
    PRESETS,
    ComputeBudget,
    ParameterBudget,
    Student,
    StudentPreset,
    WidthStudent,
    derive_student,
    fitting_presets,
    student_name,
)
from core.teacher_folder import TeacherInfo
from core.unet_layout import UNetLayout, unet_layout

__all__ = [
    "MAX_CAPTION_CHARACTERS",
    "PRESETS",
    "BadCaptionsError",
    "BadTeacherError",
    "BundledCaptions",
    "Caption",
    "CaptionLimits",
    "CaptionSource",
    "ComputeBudget",
    "DistillationSpec",
    "DrawnByCount",
    "DrawnByFraction",
    "DrawnByText",
    "EvaluationSpec",
    "ExportSpec",
    "FeatureMatchingSpec",
    "FewStepSpec",
    "FileCaptions",
    "HubCaptions",
    "InlineCaptions",
    "InvalidStudentError",
    "LatentsSpec",
    "MethodSpec",
    "ParameterBudget",
    "RandomConditioningSpec",
    "S3Captions",
    "SamplerName",
    "Student",
    "StudentPreset",
    "TeacherInfo",
    "TrainingSpec",
    "UNetLayout",
    "UnknownTeacherError",
    "UploadedCaptions",
    "WidthStudent",
    "choose_student",
    "derive_student",
    "find_teacher",
    "fitting_presets",
    "list_teachers",
    "student_name",
    "unet_layout",
]


MOST_SAMPLER_STEPS = 998
"""Two less than there are timesteps: with more, samplers begin at one that a model does not have."""

SamplerName = Literal["pndm", "ddim", "ddim-trailing", "dpm-solver++"]


class LatentsSpec(SpecModel):
    """How the teacher draws its own training pictures, kept as latents."""

    sampler: Literal["pndm", "ddim", "dpm-solver++"] = "pndm"
    steps: int = Field(default=25, ge=1, le=MOST_SAMPLER_STEPS)
    guidance_scale: float = Field(default=7.5, ge=1, le=30)
    batch_size: int = Field(default=16, ge=1, le=1_024)


class TrainingSpec(SpecModel):
    """The training loop."""

    steps: int = Field(default=50_000, ge=1, le=10_000_000)
    batch_size: int = Field(default=256, ge=1, le=65_536, description="Samples per optimiser step.")
    micro_batch_size: int | None = Field(
        default=None, ge=1, le=65_536, description="Samples per forward pass; the batch size by default."
    )
    learning_rate: float = Field(default=5e-5, gt=0, le=1)
    warmup_steps: int = Field(default=0, ge=0, le=1_000_000)
    learning_rate_schedule: Literal["constant", "cosine"] = "constant"
    weight_decay: float = Field(default=1e-2, ge=0, le=1)
    gradient_clip: float = Field(default=1.0, gt=0, le=1_000)
    ema_decay: float = Field(default=0.999, ge=0, lt=1)
    log_every: int = Field(default=50, ge=1)
    checkpoint_every: int = Field(default=1_000, ge=1)
    sample_every: int = Field(default=1_000, ge=1)
    gradient_checkpointing: bool = Field(
        default=False,
        description="Compute the student's activations again in the backward pass instead of keeping them: "
        "less memory, the same gradients, a third more arithmetic for the student.",
    )
    precision: Literal["float32", "bfloat16"] | None = Field(
        default=None, description="bfloat16 on an accelerator, float32 on a CPU by default."
    )

    @model_validator(mode="after")
    def _micro_batches_fill_the_batch(self) -> "TrainingSpec":
        if self.micro_batch_size is not None and self.batch_size % self.micro_batch_size:
            raise ValueError(
                f"micro_batch_size {self.micro_batch_size} does not divide batch_size {self.batch_size}"
            )
        return self


class EvaluationSpec(SpecModel):
    """What is measured and drawn at the end, for teacher and student alike, and of the student on the way."""

    samples: int = Field(
        default=256,
        ge=2,
        le=100_000,
        description="Pictures per model, number of steps and split (drawn, text-only, held-out).",
    )
    sampler: SamplerName = "dpm-solver++"
    steps: int = Field(default=20, ge=1, le=MOST_SAMPLER_STEPS)
    more_steps: list[Annotated[int, Field(ge=1, le=MOST_SAMPLER_STEPS)]] = Field(
        default=[], max_length=16, description="Further numbers of sampler steps to measure both models at."
    )
    guidance_scale: float = Field(default=7.5, ge=1, le=30)
    batch_size: int = Field(default=32, ge=1, le=1_024)
    features: Literal["clip", "inception"] = Field(
        default="clip",
        description="What judges pictures: the teacher's or else the machine's CLIP, or the published "
        "protocol's Inception, whose weights the machine must have.",
    )
    bootstrap_resamples: int = Field(
        default=200, ge=0, le=10_000, description="For the 95 % interval of each score; 0 for no intervals."
    )
    grid_prompts: list[Caption] | None = Field(
        default=None,
        min_length=1,
        max_length=32,
        description="Prompts of the sample grids; some captions of each split, chosen by seed, by default.",
    )
    score_every: int = Field(
        default=2_500,
        ge=0,
        description="Steps from one score of the unfinished student to the next; 0 for no such scores.",
    )
    score_samples: int = Field(
        default=32,
        ge=2,
        le=10_000,
        description="Pictures per split of each such score; the captions and seeds are always the same.",
    )


class ExportSpec(SpecModel):
    """What lies in the student's folder besides its pipeline in the precision of the teacher's weights."""

    variants: list[Literal["fp16", "bf16"]] = Field(
        default=["fp16", "bf16"],
        description="More precisions of the U-Net, for from_pretrained's variant.",
    )
    single_file: bool = Field(
        default=True,
        description="Whether the U-Net also comes as one file under the original names, as other tools read.",
    )


class DistillationSpec(SpecModel):
    """One job: teacher, student, captions, method, training, evaluation."""

    teacher: str = Field(
        min_length=1,
        max_length=512,
        pattern=NO_NUL,
        description="Id of a teacher, as listed by GET /teachers, or a pipeline folder s3://bucket/prefix "
        "that the service's operator allows; where core runs alone, also a pipeline folder or "
        "owner/name@revision of the Hugging Face Hub.",
        examples=["emoji-64", "s3://models/my-teacher"],
    )
    student: Student = Field(
        default="b-small",
        description="A preset, a width, or a budget that the largest student within it is chosen by.",
        examples=["b-small", {"width": 0.8}, {"max_params": 500_000_000}],
    )
    captions: CaptionSource = BundledCaptions()
    caption_limits: CaptionLimits = CaptionLimits()
    drawn: DrawnByCount | DrawnByFraction | DrawnByText = DrawnByCount()
    latents: LatentsSpec = LatentsSpec()
    method: MethodSpec = MethodSpec()
    training: TrainingSpec = TrainingSpec()
    few_step: FewStepSpec | None = Field(
        default=None, description="Few-step transfer after the training; none by default."
    )
    evaluation: EvaluationSpec = EvaluationSpec()
    export: ExportSpec = ExportSpec()
    seed: int = Field(default=0, ge=0, lt=2**32)

    @property
    def student_drawing(self) -> EvaluationSpec:
        """How the final student draws: as evaluated, or after a transfer in its few steps, unguided."""
        return self.round_drawing(self.few_step.steps) if self.few_step else self.evaluation

    def round_drawing(self, steps: int | None) -> EvaluationSpec:
        """How a student draws after a round of its transfer: unguided, and in `steps` unless that is None."""
        fewer = {} if steps is None else {"sampler": "ddim-trailing", "steps": steps}
        return self.evaluation.model_copy(update={"guidance_scale": 1.0, **fewer})

    @property
    def optimiser_steps(self) -> int:
        """Steps of the training and of the transfer together."""
        transfer = len(self.few_step.rounds) * self.few_step.training_steps if self.few_step else 0
        return self.training.steps + transfer
