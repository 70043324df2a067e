"""Students as rules on the teacher's own U-Net config, so that they hold for any teacher of the family.

Two kinds of rule: block students take layers, the mid block or the innermost stage away; width students keep
the teacher's shape and a fraction of its channels. Applied to Stable Diffusion 1.4 the rules reproduce the
published students to the parameter. Nothing here builds a model: this module is free of torch, because the
API process checks specifications with it.

References
----------
Kim et al., "BK-SDM: A Lightweight, Fast, and Cheap Version of Stable Diffusion", ECCV 2024 (block students).
Kim et al., "Random Conditioning for Diffusion Model Compression with Distillation", CVPR 2025 (width
students).
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field

from core.errors import InvalidStudentError
from core.spec_model import SpecModel

StudentPreset = Literal["b-base", "b-small", "b-tiny", "c-base", "c-small", "c-tiny", "c-micro"]
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
    width
        Fraction of the channels that stays.
    """

    fewer_layers: int = 0
    keeps_mid_block: bool = True
    keeps_innermost_stage: bool = True
    width: float = 1.0


PRESETS: dict[StudentPreset, StudentRule] = {
    "b-base": StudentRule(fewer_layers=1),
    "b-small": StudentRule(fewer_layers=1, keeps_mid_block=False),
    "b-tiny": StudentRule(fewer_layers=1, keeps_mid_block=False, keeps_innermost_stage=False),
    "c-base": StudentRule(width=0.8),
    "c-small": StudentRule(width=0.7),
    "c-tiny": StudentRule(width=0.6),
    "c-micro": StudentRule(width=0.5),
}


def student_rule(student: StudentPreset | WidthStudent) -> StudentRule:
    """Return the rule of a preset or of a width."""
    return StudentRule(width=student.width) if isinstance(student, WidthStudent) else PRESETS[student]


def student_name(student: StudentPreset | WidthStudent) -> str:
    """Return the name that people read: ``b-small`` or ``width-0.75``."""
    return f"width-{student.width:g}" if isinstance(student, WidthStudent) else student


def derive_student(unet_config: Mapping[str, Any], student: StudentPreset | WidthStudent) -> UNetConfig:
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
    _check_blocks(unet_config, student)
    config = {name: value for name, value in unet_config.items() if not name.startswith("_")}
    config["block_out_channels"] = _scaled_channels(unet_config, student, rule.width)
    config["layers_per_block"] = _without_layers(config["layers_per_block"], rule.fewer_layers)
    if not rule.keeps_mid_block:
        config["mid_block_type"] = None
    return config if rule.keeps_innermost_stage else _without_innermost_stage(config)


def allowed_widths(unet_config: Mapping[str, Any]) -> list[float]:
    """Return every width that keeps all blocks divisible by their norm groups and attention heads.

    With channels c and divisor m of each block, a width w is allowed when every w·c is a multiple of m, that
    is when w·(c/m) is a whole number. The numbers c/m are whole already, so this holds for all of them
    exactly when w is a multiple of 1 / gcd(c/m).
    """
    channels, divisors = unet_config["block_out_channels"], _channel_divisors(unet_config)
    shared = math.gcd(*(count // divisor for count, divisor in zip(channels, divisors, strict=True)))
    return [multiple / shared for multiple in range(1, shared + 1)]


def _channel_divisors(unet_config: Mapping[str, Any]) -> list[int]:
    """Return what each block's channels must be a multiple of: its norm groups and its attention heads.

    Configs of this family call the number of heads ``attention_head_dim``: one number, or one a stage.
    """
    heads = unet_config["attention_head_dim"]
    stages = len(unet_config["block_out_channels"])
    per_stage = [heads] * stages if isinstance(heads, int) else list(heads)
    return [math.lcm(unet_config["norm_num_groups"], count) for count in per_stage]


def _scaled_channels(
    unet_config: Mapping[str, Any], student: StudentPreset | WidthStudent, width: float
) -> list[int]:
    channels = list(unet_config["block_out_channels"])
    widths = allowed_widths(unet_config)
    if any(math.isclose(width, allowed) for allowed in widths):
        return [round(width * count) for count in channels]
    below = [f"{allowed:.6g}" for allowed in widths if allowed < width][-1:]
    above = [f"{allowed:.6g}" for allowed in widths if allowed > width][:1]
    raise InvalidStudentError(
        "student.width" if isinstance(student, WidthStudent) else "student",
        width if isinstance(student, WidthStudent) else student,
        below + above if isinstance(student, WidthStudent) else _fitting_presets(widths),
        f"at width {width:g} the blocks' channels {channels} would not be divisible by their norm groups and "
        f"attention heads; nearest widths that are: {' and '.join(below + above)}",
    )


def _fitting_presets(widths: list[float]) -> list[str]:
    return _presets_where(lambda rule: any(math.isclose(rule.width, allowed) for allowed in widths))


def _presets_where(condition: Callable[[StudentRule], bool]) -> list[str]:
    return [name for name, rule in PRESETS.items() if condition(rule)]


def _check_blocks(unet_config: Mapping[str, Any], student: StudentPreset | WidthStudent) -> None:
    """Raise if the rule takes away more than the teacher has."""
    rule, name = student_rule(student), student_name(student)
    layers, channels = unet_config["layers_per_block"], unet_config["block_out_channels"]
    if rule.fewer_layers and min([layers] if isinstance(layers, int) else layers) <= rule.fewer_layers:
        raise InvalidStudentError(
            "student",
            name,
            _presets_where(lambda other: not other.fewer_layers),
            f"{name} takes a layer from every block, but this teacher has blocks of one layer",
        )
    attending = sum("CrossAttn" in block for block in unet_config["down_block_types"])
    has_stage_to_spare = attending >= 2 and len(channels) >= 3 and channels[-1] >= channels[-2]
    if not rule.keeps_innermost_stage and not has_stage_to_spare:
        raise InvalidStudentError(
            "student",
            name,
            _presets_where(lambda other: other.keeps_innermost_stage),
            f"{name} removes the innermost stage: the teacher needs three stages, two of them with "
            "cross-attention, and an innermost stage at least as wide as the one before it",
        )


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
