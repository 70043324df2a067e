"""Where teacher and student are compared inside: an explicit list of pairs of modules, tapped in order.

A tapped U-Net returns its prediction together with its features, so that no feature is ever looked up by a
module's name, which wrappers such as DDP change.

Axes: B batch, C channels, H W height and width, L tokens, D width of a token.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from diffusers import UNet2DConditionModel
from torch import nn

from core.randomness import derived_seed


@dataclass(frozen=True)
class FeaturePair:
    """A point in the teacher, its counterpart in the student, and the channels of both."""

    teacher: nn.Module
    student: nn.Module
    teacher_channels: int
    student_channels: int


def feature_pairs(teacher: UNet2DConditionModel, student: UNet2DConditionModel) -> list[FeaturePair]:
    """Pair the block outputs of a teacher and of a student derived from it.

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
        points: Sequence[nn.Module],
        projectors: Sequence[nn.Module] | None = None,
    ) -> None:
        super().__init__()
        self.unet = unet
        self.projectors = nn.ModuleList(projectors or [nn.Identity() for _ in points])
        self._features: list[torch.Tensor | None] = [None] * len(points)
        for place, point in enumerate(points):
            point.register_forward_hook(self._tap(place))

    def forward(
        self, noisy_BCHW: torch.Tensor, timestep_B: torch.Tensor, prompts_BLD: torch.Tensor
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Return the prediction and the projected features, in the order of the points."""
        prediction = self.unet(noisy_BCHW, timestep_B, prompts_BLD, return_dict=False)[0]
        features = [
            projector(feature) for projector, feature in zip(self.projectors, self._features, strict=True)
        ]
        self._features = [None] * len(features)
        return prediction, features

    def _tap(self, place: int) -> Callable[..., None]:
        def keep(module: nn.Module, inputs: tuple, output: torch.Tensor | tuple) -> None:
            # A down block returns its output and its skip connections; the others the output alone.
            self._features[place] = output[0] if isinstance(output, tuple) else output

        return keep


def tap_pair(
    teacher: UNet2DConditionModel, student: UNet2DConditionModel, seed: int
) -> tuple[TappedUNet, TappedUNet]:
    """Tap a teacher and its student at their pairs, with 1-by-1 projectors where the student is narrower."""
    pairs = feature_pairs(teacher, student)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derived_seed(seed, "projectors"))
        projectors = [
            nn.Identity()
            if pair.student_channels == pair.teacher_channels
            else nn.Conv2d(pair.student_channels, pair.teacher_channels, kernel_size=1)
            for pair in pairs
        ]
    return (
        TappedUNet(teacher, [pair.teacher for pair in pairs]),
        TappedUNet(student, [pair.student for pair in pairs], projectors),
    )
