"""Where a student's weights start: in the teacher's remaining blocks, or for a width student at random.

A block student's tensors are all found in the teacher by a rule on their names. One tensor can be of another
shape: without the innermost stage, the first decoder layer reads what the stage before it puts out instead of
what the innermost stage did, which may be wider. It keeps the weights of its first channels.
"""

import re

import torch
from diffusers import UNet2DConditionModel

from core.randomness import derived_seed
from core.students import StudentRule, UNetConfig

UP_BLOCK = re.compile(r"up_blocks\.(\d+)\.")
UP_LAYER = re.compile(r"up_blocks\.(\d+)\.(resnets|attentions)\.(\d+)\.(.+)")
FIRST_DECODER_LAYER = "up_blocks.0.resnets.0."


def build_student(
    config: UNetConfig, rule: StudentRule, teacher: UNet2DConditionModel, seed: int
) -> UNet2DConditionModel:
    """Build a student with its starting weights, in training mode, on the teacher's device.

    Parameters
    ----------
    config
        The student's U-Net config, derived by `rule` from the teacher's.
    rule
        How the student was derived.
    teacher
        The teacher's U-Net.
    seed
        The job's seed.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derived_seed(seed, "student"))
        student = UNet2DConditionModel.from_config(config)
    if rule.width == 1:
        student.load_state_dict(weights_from_teacher(student, teacher))
    return student.to(teacher.device).train()


def weights_from_teacher(
    student: UNet2DConditionModel, teacher: UNet2DConditionModel
) -> dict[str, torch.Tensor]:
    """Return every tensor of a block student, taken from the teacher's remaining blocks."""
    removed_stages = len(teacher.up_blocks) - len(student.up_blocks)
    theirs = teacher.state_dict()
    weights = {}
    for name, tensor in student.state_dict().items():
        weight = theirs[teacher_name(name, removed_stages)]
        if removed_stages and name.startswith(FIRST_DECODER_LAYER) and weight.shape != tensor.shape:
            channels = teacher.config.block_out_channels
            weight = _first_channels(weight, wide=channels[-1], narrow=channels[-2])
        weights[name] = weight
    return weights


def teacher_name(name: str, removed_stages: int) -> str:
    """Return the teacher's name of a block student's tensor.

    Of each three layers of a decoder block the first and the last stay, hence the student's layer 1 is the
    teacher's layer 2; the decoder of a student without innermost stages is shifted by their number.
    """
    if layer := UP_LAYER.fullmatch(name):
        block, kind, place, rest = int(layer[1]), layer[2], int(layer[3]), layer[4]
        return f"up_blocks.{block + removed_stages}.{kind}.{place + (place > 0)}.{rest}"
    return UP_BLOCK.sub(lambda block: f"up_blocks.{int(block[1]) + removed_stages}.", name)


def _first_channels(weight: torch.Tensor, wide: int, narrow: int) -> torch.Tensor:
    """Of `wide` channels and the skip connections behind them, keep `narrow` and the skip connections."""
    axis = 0 if weight.ndim == 1 else 1  # a norm's channels, a convolution's inputs
    kept = torch.cat([torch.arange(narrow), torch.arange(wide, weight.shape[axis])])
    return weight.index_select(axis, kept.to(weight.device))
