"""Students as rules on the teacher's own U-Net config, so that they hold for any teacher of its family.

Two kinds of rule: block students take layers, the mid block or the innermost stage away; width students keep
the teacher's shape and a fraction of its channels. Applied to Stable Diffusion 1.4 and XL the rules reproduce
the published students to the parameter. Nothing here builds a model: this module is free of torch, because
the API process checks specifications with it.

References
----------
Kim et al., "BK-SDM: A Lightweight, Fast, and Cheap Version of Stable Diffusion", ECCV 2024 (block students).
Kim et al., "Random Conditioning for Diffusion Model Compression with Distillation", CVPR 2025 (width
students).
Lee et al., "KOALA: Empirical Lessons Toward Memory-Efficient and Fast Diffusion Models for Text-to-Image
Synthesis", NeurIPS 2024 (students of Stable Diffusion XL).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal

from pydantic import Field

from core.errors import InvalidStudentError
from core.spec_model import SpecModel
from core.unet_layout import heads_per_stage, transformer_layers_per_stage

StudentPreset = Literal[
    "b-base",
    "b-small",
    "b-tiny",
    "c-base",
    "c-small",
    "c-tiny",
    "c-micro",
    "koala-1b",
    "koala-700m",
]
UNetConfig = dict[str, Any]

PER_STAGE_SETTINGS = (
    "block_out_channels",
    "down_block_types",
    "layers_per_block",
    "attention_head_dim",
    "cross_attention_dim",
    "only_cross_attention",
    "transformer_layers_per_block",
)


class WidthStudent(SpecModel):
    """A student with the teacher's shape and a fraction of its channels."""

    width: float = Field(
        gt=0, le=1, description="Fraction of the teacher's channels kept in every block.", examples=[0.8]
    )
    initialisation: Literal["sliced", "random"] = Field(
        default="sliced",
        description="Start from the teacher's most important channels, or at random as published.",
    )


class ParameterBudget(SpecModel):
    """The largest student of the teacher that has at most so many parameters."""

    max_params: int = Field(gt=0, le=10**12, description="Parameters of the U-Net.", examples=[500_000_000])


class ComputeBudget(SpecModel):
    """The largest student of the teacher that needs at most so many multiply-accumulates."""

    max_macs: int = Field(
        gt=0,
        le=10**15,
        description="Multiply-accumulates of one pass of one picture through the U-Net's linear and "
        "convolution layers.",
        examples=[200_000_000_000],
    )


ExactStudent = StudentPreset | WidthStudent
Student = ExactStudent | ParameterBudget | ComputeBudget


@dataclass(frozen=True)
class StudentRule:
    """What a preset takes away from its teacher.

    Attributes
    ----------
    fewer_layers
        Layers taken from every block.
    keeps_mid_block
        Whether the block between encoder and decoder stays.
    keeps_innermost_stage
        Whether the stage of the lowest resolution stays.
    innermost_depth
        Fraction of the transformer layers that stays in each attention of the innermost stage.
    width
        Fraction of the channels that stays.
    random_start
        Whether the weights start at random instead of from the teacher's.
    """

    fewer_layers: int = 0
    keeps_mid_block: bool = True
    keeps_innermost_stage: bool = True
    innermost_depth: float = 1.0
    width: float = 1.0
    random_start: bool = False


PRESETS: dict[StudentPreset, StudentRule] = {
    "b-base": StudentRule(fewer_layers=1),
    "b-small": StudentRule(fewer_layers=1, keeps_mid_block=False),
    "b-tiny": StudentRule(fewer_layers=1, keeps_mid_block=False, keeps_innermost_stage=False),
    "c-base": StudentRule(width=0.8),
    "c-small": StudentRule(width=0.7),
    "c-tiny": StudentRule(width=0.6),
    "c-micro": StudentRule(width=0.5),
    "koala-1b": StudentRule(fewer_layers=1, innermost_depth=0.6),
    "koala-700m": StudentRule(fewer_layers=1, innermost_depth=0.5, keeps_mid_block=False),
}


def student_rule(student: ExactStudent) -> StudentRule:
    """Return the rule of a preset or of a width."""
    if isinstance(student, WidthStudent):
        return StudentRule(width=student.width, random_start=student.initialisation == "random")
    return PRESETS[student]


def student_name(student: Student) -> str:
    """Return the name that people read: ``b-small``, ``width-0.75``, ``max-params-500M``."""
    match student:
        case WidthStudent(width=width, initialisation="sliced"):
            return f"width-{width:g}"
        case WidthStudent(width=width):
            return f"width-{width:g}-random"
        case ParameterBudget(max_params=limit):
            return f"max-params-{_short(limit)}"
        case ComputeBudget(max_macs=limit):
            return f"max-macs-{_short(limit)}"
    return student


def derive_student(unet_config: Mapping[str, Any], student: ExactStudent) -> UNetConfig:
    """Return the config of a student's U-Net, without the private entries that diffusers adds to configs.

    Parameters
    ----------
    unet_config
        The teacher's U-Net config, as diffusers writes it.
    student
        A preset, or a width.

    Raises
    ------
    InvalidStudentError
        If the rule does not hold for this teacher; it lists what would.
    """
    rule = student_rule(student)
    if objection := _objection(unet_config, rule):
        raise _refusal(unet_config, student, objection)
    config = {name: value for name, value in unet_config.items() if not name.startswith("_")}
    config["layers_per_block"] = _without_layers(config["layers_per_block"], rule.fewer_layers)
    config["block_out_channels"] = [round(rule.width * count) for count in config["block_out_channels"]]
    config["attention_head_dim"] = _heads_at(unet_config, rule.width)
    if rule.innermost_depth < 1:
        depths = transformer_layers_per_stage(unet_config)
        config["transformer_layers_per_block"] = [*depths[:-1], round(rule.innermost_depth * depths[-1])]
    if not rule.keeps_mid_block:
        config["mid_block_type"] = None
    return config if rule.keeps_innermost_stage else _without_innermost_stage(config)


def fitting_presets(unet_config: Mapping[str, Any]) -> list[StudentPreset]:
    """Return the presets whose rules hold for a teacher."""
    return [name for name, rule in PRESETS.items() if _objection(unet_config, rule) is None]


def allowed_widths(unet_config: Mapping[str, Any]) -> list[float]:
    """Return every width that keeps all blocks divisible by their norm groups and attention heads.

    With channels c and divisor m of each block, a width w is allowed when every w·c is a multiple of m, that
    is when w·(c/m) is a whole number. The numbers c/m are whole already, so this holds for all of them
    exactly when w is a multiple of 1 / gcd(c/m). Where each stage has a number of heads h of its own, there
    may also be fewer of them, of the same width: then w·h must be whole, and w·c divisible by the groups.
    """
    channels, heads = unet_config["block_out_channels"], heads_per_stage(unet_config)
    groups = unet_config["norm_num_groups"]
    shares = [_shared(channels, [math.lcm(groups, count) for count in heads])]
    if _may_have_fewer_heads(unet_config):
        shares.append(math.gcd(_shared(channels, [groups] * len(heads)), *heads))
    widths = {Fraction(multiple, share) for share in shares for multiple in range(1, share + 1)}
    return [float(width) for width in sorted(widths)]


def _shared(channels: list[int], divisors: list[int]) -> int:
    return math.gcd(*(count // divisor for count, divisor in zip(channels, divisors, strict=True)))


def _may_have_fewer_heads(unet_config: Mapping[str, Any]) -> bool:
    return not isinstance(unet_config["attention_head_dim"], int)


def _heads_at(unet_config: Mapping[str, Any], width: float) -> int | list[int]:
    """Return the heads of a width student: as many as the teacher's, or where that cannot be, fewer."""
    channels, heads = unet_config["block_out_channels"], heads_per_stage(unet_config)
    if all(round(width * count) % head == 0 for count, head in zip(channels, heads, strict=True)):
        as_many: int | list[int] = unet_config["attention_head_dim"]
        return as_many
    return [round(width * count) for count in heads]


def _objection(unet_config: Mapping[str, Any], rule: StudentRule) -> str | None:
    """Return why a rule does not hold for a teacher, or None if it does."""
    layers, channels = unet_config["layers_per_block"], unet_config["block_out_channels"]
    if rule.fewer_layers and min([layers] if isinstance(layers, int) else layers) <= rule.fewer_layers:
        return "it takes a layer from every block, but this teacher has blocks of one layer"
    attending = sum("CrossAttn" in block for block in unet_config["down_block_types"])
    has_stage_to_spare = attending >= 2 and len(channels) >= 3 and channels[-1] >= channels[-2]
    if not rule.keeps_innermost_stage and not has_stage_to_spare:
        return (
            "it removes the innermost stage: the teacher needs three stages, two of them with "
            "cross-attention, and an innermost stage at least as wide as the one before it"
        )
    if rule.innermost_depth < 1 and transformer_layers_per_stage(unet_config)[-1] < 2:
        return "it takes transformer layers from the innermost stage, but this teacher has only one there"
    if not any(math.isclose(rule.width, allowed) for allowed in allowed_widths(unet_config)):
        return (
            f"at width {rule.width:g} the blocks' channels {list(channels)} would not be divisible by their "
            "norm groups and attention heads"
        )
    return None


def _refusal(unet_config: Mapping[str, Any], student: ExactStudent, objection: str) -> InvalidStudentError:
    """Return the error for a rule that does not hold, with what would."""
    name = student_name(student)
    if not isinstance(student, WidthStudent):
        fitting = [str(preset) for preset in fitting_presets(unet_config)]
        return InvalidStudentError(
            "student", student, fitting, f"{name} does not fit this teacher: {objection}"
        )
    widths = allowed_widths(unet_config)
    nearest = [width for width in widths if width < student.width][-1:]
    nearest += [width for width in widths if width > student.width][:1]
    names = [f"{width:.6g}" for width in nearest]
    message = f"{objection}; nearest widths that are: {' and '.join(names)}"
    return InvalidStudentError("student.width", student.width, names, message)


def _without_layers(layers: int | list[int], fewer: int) -> int | list[int]:
    return layers - fewer if isinstance(layers, int) else [count - fewer for count in layers]


def _without_innermost_stage(config: UNetConfig) -> UNetConfig:
    """Drop the innermost stage from every setting that has one value a stage."""
    shorter = dict(config)
    shorter["up_block_types"] = list(config["up_block_types"])[1:]
    for name in PER_STAGE_SETTINGS:
        if isinstance(config.get(name), list | tuple):
            shorter[name] = list(config[name])[:-1]
    return shorter


def _short(number: int) -> str:
    """Return a number as people write it: 500M, or 1.2B."""
    for limit, letter in ((10**12, "T"), (10**9, "B"), (10**6, "M"), (10**3, "k")):
        if number >= limit:
            return f"{number / limit:.4g}{letter}"
    return str(number)
