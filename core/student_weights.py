"""Where a student's weights start: in the teacher's remaining blocks or channels, or at random.

A block student's tensors are all found in the teacher by a rule on their names. One tensor can be of another
shape: without the innermost stage, the first decoder layer reads what the stage before it puts out instead of
what the innermost stage did, which may be wider. It keeps the weights of its first channels. A width
student's are cut out of the teacher's, or start at random as in the published method.
"""

import re

import torch
from diffusers import UNet2DConditionModel

from core.randomness import derived_seed
from core.slicing import sliced_weights
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
    if not rule.random_start:
        start = sliced_weights if rule.width < 1 else weights_from_teacher
        student.load_state_dict(start(student.to(teacher.device), teacher))
    return student.to(teacher.device).train()


def weights_from_teacher(
    student: UNet2DConditionModel, teacher: UNet2DConditionModel
) -> dict[str, torch.Tensor]:
    """Return every tensor of a block student, taken from the teacher's remaining blocks."""
    removed_stages = len(teacher.up_blocks) - len(student.up_blocks)
    fewer_layers = len(teacher.up_blocks[-1].resnets) - len(student.up_blocks[-1].resnets)
    theirs = teacher.state_dict()
    weights = {}
    for name, tensor in student.state_dict().items():
        weight = theirs[teacher_name(name, removed_stages, fewer_layers)]
        if removed_stages and name.startswith(FIRST_DECODER_LAYER) and weight.shape != tensor.shape:
            channels = teacher.config.block_out_channels
            weight = _first_channels(weight, wide=channels[-1], narrow=channels[-2])
        weights[name] = weight
    return weights


def teacher_name(name: str, removed_stages: int, fewer_layers: int = 1) -> str:
    """Return the teacher's name of a block student's tensor.

    Of the layers of a decoder block the first and the last stay, hence of three the student's layer 1 is the
    teacher's layer 2; the decoder of a student without innermost stages is shifted by their number. Of the
    transformer layers of an attention the first ones stay, under their own names.
    """
    if layer := UP_LAYER.fullmatch(name):
        block, kind, place, rest = int(layer[1]), layer[2], int(layer[3]), layer[4]
        place += fewer_layers if place else 0
        return f"up_blocks.{block + removed_stages}.{kind}.{place}.{rest}"
    return UP_BLOCK.sub(lambda block: f"up_blocks.{int(block[1]) + removed_stages}.", name)


def _first_channels(weight: torch.Tensor, wide: int, narrow: int) -> torch.Tensor:
    """Of `wide` channels and the skip connections behind them, keep `narrow` and the skip connections."""
    axis = 0 if weight.ndim == 1 else 1  # a norm's channels, a convolution's inputs
    kept = torch.cat([torch.arange(narrow), torch.arange(wide, weight.shape[axis])])
    return weight.index_select(axis, kept.to(weight.device))
