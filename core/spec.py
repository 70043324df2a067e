"""The specification of one distillation job: what a user asks for, with every default resolved.

A specification is immutable once accepted and is stored as JSON. This module and everything it imports is
free of torch, because the API process validates specifications and has no torch in it.
"""

from typing import Annotated, Literal

from pydantic import Field, StringConstraints, model_validator

from core.errors import InvalidStudentError, UnknownTeacherError
from core.registry import TeacherInfo, find_teacher, list_teachers
from core.spec_model import SpecModel
from core.students import PRESETS, StudentPreset, WidthStudent, derive_student, student_name

__all__ = [
    "PRESETS",
    "BundledCaptions",
    "DistillationSpec",
    "DrawnByCount",
    "DrawnByText",
    "EvaluationSpec",
    "FileCaptions",
    "InlineCaptions",
    "InvalidStudentError",
    "LatentsSpec",
    "MethodSpec",
    "StudentPreset",
    "TeacherInfo",
    "TrainingSpec",
    "UnknownTeacherError",
    "WidthStudent",
    "derive_student",
    "find_teacher",
    "list_teachers",
    "student_name",
]

MAX_CAPTION_CHARACTERS = 1_000
MAX_INLINE_CAPTIONS = 10_000

NO_NUL = r"^[^\x00]*$"  # neither Postgres nor a file name can hold that character
Caption = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=MAX_CAPTION_CHARACTERS, pattern=NO_NUL),
]


class InlineCaptions(SpecModel):
    """Captions given in the request itself."""

    kind: Literal["inline"] = "inline"
    texts: list[Caption] = Field(min_length=1, max_length=MAX_INLINE_CAPTIONS)


class FileCaptions(SpecModel):
    """Captions in a UTF-8 text file, one a line, on the machine that does the work."""

    kind: Literal["file"] = "file"
    path: str = Field(min_length=1, max_length=4_096, pattern=NO_NUL)


class BundledCaptions(SpecModel):
    """The caption set that comes with a bundled teacher."""

    kind: Literal["bundled"] = "bundled"
    name: Literal["emoji-64"] = "emoji-64"


CaptionSource = Annotated[InlineCaptions | FileCaptions | BundledCaptions, Field(discriminator="kind")]


class DrawnByCount(SpecModel):
    """Draw a number of captions, chosen from the set by the job's seed."""

    count: int = Field(default=256, ge=1, le=1_000_000)


class DrawnByText(SpecModel):
    """Draw exactly these captions; they join the set if it does not hold them yet."""

    texts: list[Caption] = Field(min_length=1, max_length=MAX_INLINE_CAPTIONS)


class LatentsSpec(SpecModel):
    """How the teacher draws its own training pictures, kept as latents."""

    sampler: Literal["pndm", "ddim", "dpm-solver++"] = "pndm"
    steps: int = Field(default=25, ge=1, le=1_000)
    guidance_scale: float = Field(default=7.5, ge=1, le=30)
    batch_size: int = Field(default=16, ge=1, le=1_024)


class RandomConditioningSpec(SpecModel):
    """Probability p(t) that a sample's caption is replaced by one drawn from the whole set.

    With u = t/T: ``exponential`` exp(-5(1-u)); ``sigmoid`` 1/(1+exp(-20(u-0.7))); ``two-sided`` the
    exponential of the distance to the nearer end; ``quadratic`` (2u-1)²; ``constant`` the same p for every
    t; ``off`` never.

    References
    ----------
    Kim et al., "Random Conditioning for Diffusion Model Compression with Distillation", CVPR 2025.
    """

    schedule: Literal["exponential", "sigmoid", "two-sided", "quadratic", "constant", "off"] = "exponential"
    rate: float = Field(default=5.0, gt=0, le=100, description="λ of the exponential schedules.")
    probability: float = Field(default=0.5, ge=0, le=1, description="p of the constant schedule.")


class FeatureMatchingSpec(SpecModel):
    """Matching of the U-Net's block outputs.

    ``teacher-energy`` divides each point's squared error by the teacher's own mean square there, so that no
    layer dominates; ``none`` is the published plain sum.
    """

    weight: float = Field(default=0.1, ge=0, le=1_000)
    normalisation: Literal["teacher-energy", "none"] = "teacher-energy"


class MethodSpec(SpecModel):
    """The knobs of the distillation method itself."""

    random_conditioning: RandomConditioningSpec = RandomConditioningSpec()
    blank_probability: float = Field(default=0.1, ge=0, le=1)
    output_weight: float = Field(default=1.0, gt=0, le=1_000)
    features: FeatureMatchingSpec = FeatureMatchingSpec()
    noise_matching_steps: Literal[1] = Field(
        default=1, description="Visited states per sample; more than one is reserved for a later release."
    )


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
    """What is measured and drawn at the end, for teacher and student alike."""

    samples: int = Field(
        default=256, ge=2, le=100_000, description="Pictures per model and split (drawn, text-only)."
    )
    sampler: Literal["pndm", "ddim", "dpm-solver++"] = "dpm-solver++"
    steps: int = Field(default=20, ge=1, le=1_000)
    guidance_scale: float = Field(default=7.5, ge=1, le=30)
    batch_size: int = Field(default=32, ge=1, le=1_024)
    grid_prompts: list[Caption] | None = Field(
        default=None,
        min_length=1,
        max_length=32,
        description="Prompts of the sample grids; drawn and text-only captions chosen by seed by default.",
    )


class DistillationSpec(SpecModel):
    """One job: teacher, student, captions, method, training, evaluation."""

    teacher: str = Field(
        min_length=1,
        max_length=512,
        pattern=NO_NUL,
        description="Id of a teacher, as listed by GET /teachers.",
        examples=["emoji-64"],
    )
    student: StudentPreset | WidthStudent = Field(default="b-small", examples=["b-small", {"width": 0.8}])
    captions: CaptionSource = BundledCaptions()
    drawn: DrawnByCount | DrawnByText = DrawnByCount()
    latents: LatentsSpec = LatentsSpec()
    method: MethodSpec = MethodSpec()
    training: TrainingSpec = TrainingSpec()
    few_step: None = Field(default=None, description="Few-step transfer; reserved for a later release.")
    evaluation: EvaluationSpec = EvaluationSpec()
    seed: int = Field(default=0, ge=0, lt=2**32)
