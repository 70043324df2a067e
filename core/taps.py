"""Where teacher and student are compared inside: an explicit list of pairs of modules, tapped in order.

A tapped U-Net returns its prediction together with its features, so that no feature is ever looked up by a
module's name, which wrappers such as DDP change. A U-Net without points is not tapped at all and costs what
it would cost alone.

Axes: B batch, C channels, H W height and width, N positions of the attended map.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention
from torch import nn

from core.conditions import Conditions
from core.randomness import derived_seed
from core.spec import FeatureMatchingSpec


@dataclass(frozen=True)
class FeaturePair:
    """A point in the teacher, its counterpart in the student, and the channels of both.

    Features are maps BCHW, or where an attention is the point, BNC.
    """

    teacher: nn.Module
    student: nn.Module
    teacher_channels: int
    student_channels: int

    def make_projector(self) -> nn.Module:
        """Return what brings the student's features to the teacher's width, where the widths differ."""
        if self.student_channels == self.teacher_channels:
            return nn.Identity()
        if isinstance(self.student, Attention):
            return nn.Linear(self.student_channels, self.teacher_channels)
        return nn.Conv2d(self.student_channels, self.teacher_channels, kernel_size=1)


def feature_pairs(
    teacher: UNet2DConditionModel, student: UNet2DConditionModel, features: FeatureMatchingSpec
) -> list[FeaturePair]:
    """Pair the points at which a specification compares a teacher and a student derived from it."""
    if not features.weight and not features.direction_weight:
        return []
    pairs = block_pairs(teacher, student)
    return pairs + cross_attention_pairs(teacher, student) if features.cross_attention else pairs


def block_pairs(teacher: UNet2DConditionModel, student: UNet2DConditionModel) -> list[FeaturePair]:
    """Pair the block outputs.

    Where the student lacks the innermost stage, its decoder pairs with the teacher's shifted by one, and its
    last encoder block, which no longer downsamples, is compared before the teacher's downsampling: at the
    last cross-attention.
    """
    pairs = []
    removed = len(teacher.down_blocks) - len(student.down_blocks)
    channels = list(zip(teacher.config.block_out_channels, student.config.block_out_channels, strict=False))
    for theirs, ours, width in zip(teacher.down_blocks, student.down_blocks, channels, strict=False):
        same_resolution = (theirs.downsamplers is None) == (ours.downsamplers is None)
        points = (theirs, ours) if same_resolution else (theirs.attentions[-1], ours.attentions[-1])
        pairs.append(FeaturePair(*points, *width))
    for theirs, ours, width in zip(
        teacher.up_blocks[removed:], student.up_blocks, channels[::-1], strict=True
    ):
        pairs.append(FeaturePair(theirs, ours, *width))
    return pairs


def cross_attention_pairs(teacher: UNet2DConditionModel, student: UNet2DConditionModel) -> list[FeaturePair]:
    """Pair what the captions add: the output of the last cross-attention of every layer that has one.

    A student's layer pairs with the teacher's layer that a block student takes its weights from.
    """
    pairs = []
    for theirs, ours in _attending_layers(teacher, student):
        teacher_attention = theirs.transformer_blocks[-1].attn2
        student_attention = ours.transformer_blocks[-1].attn2
        widths = (teacher_attention.out_dim, student_attention.out_dim)
        pairs.append(FeaturePair(teacher_attention, student_attention, *widths))
    return pairs


def _attending_layers(
    teacher: UNet2DConditionModel, student: UNet2DConditionModel
) -> Iterator[tuple[nn.Module, nn.Module]]:
    removed = len(teacher.up_blocks) - len(student.up_blocks)
    for theirs, ours in zip(teacher.down_blocks, student.down_blocks, strict=False):
        yield from zip(_attentions(theirs), _attentions(ours), strict=False)
    yield from zip(_attentions(teacher.mid_block), _attentions(student.mid_block), strict=False)
    for theirs, ours in zip(teacher.up_blocks[removed:], student.up_blocks, strict=True):
        # A decoder block that has lost layers kept its first and its last ones.
        fewer = len(_attentions(theirs)) - len(_attentions(ours))
        for place, layer in enumerate(_attentions(ours)):
            yield _attentions(theirs)[place + (fewer if place else 0)], layer


def _attentions(block: nn.Module | None) -> Sequence[nn.Module]:
    return getattr(block, "attentions", ())


class TappedUNet(nn.Module):
    """A U-Net that returns its features with its prediction.

    Parameters
    ----------
    unet
        The model.
    points
        Its modules to tap, in order.
    projectors
        A module for each point that brings its features to the width of their counterparts.
    """

    def __init__(
        self,
        unet: UNet2DConditionModel,
        points: Sequence[nn.Module] = (),
        projectors: Sequence[nn.Module] | None = None,
    ) -> None:
        super().__init__()
        self.unet = unet
        self.projectors = nn.ModuleList(projectors or [nn.Identity() for _ in points])
        self._features: list[torch.Tensor | None] | None = None
        self._hooks = [point.register_forward_hook(self._tap(place)) for place, point in enumerate(points)]

    def forward(
        self, noisy_BCHW: torch.Tensor, timestep_B: torch.Tensor, conditions: Conditions
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Return the prediction and the projected features, in the order of the points."""
        self._features = kept = [None] * len(self.projectors)
        prediction = conditions.predict(self.unet, noisy_BCHW, timestep_B)
        self._features = None
        return prediction, [
            projector(feature) for projector, feature in zip(self.projectors, kept, strict=True)
        ]

    def untap(self) -> None:
        """Take the taps off the model, which others may go on using."""
        for hook in self._hooks:
            hook.remove()

    def _tap(self, place: int) -> Callable[..., None]:
        def keep(module: nn.Module, inputs: tuple, output: torch.Tensor | tuple) -> None:
            if self._features is None:
                return  # gradient checkpointing calls a module again, in the backward pass
            # A down block returns its output and its skip connections; the others the output alone.
            self._features[place] = output[0] if isinstance(output, tuple) else output

        return keep


def tap_pair(
    teacher: UNet2DConditionModel,
    student: UNet2DConditionModel,
    features: FeatureMatchingSpec,
    seed: int,
) -> tuple[TappedUNet, TappedUNet]:
    """Tap a teacher and its student at their pairs, with projectors where the student is narrower."""
    pairs = feature_pairs(teacher, student, features)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derived_seed(seed, "projectors"))
        projectors = [pair.make_projector() for pair in pairs]
    return (
        TappedUNet(teacher, [pair.teacher for pair in pairs]),
        TappedUNet(student, [pair.student for pair in pairs], projectors),
    )
