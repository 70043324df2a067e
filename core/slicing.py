"""Where a width student starts: in its teacher's most important channels.

Wherever channels flow unchanged through several layers, all of them keep the same ones: a residual stream,
the two sides of a skip connection, queries and keys, the values and gates of a feed-forward layer. Every
group of every norm keeps the same share of its channels, so that a student's group is what is left of one
group of the teacher's. Attention heads either all keep the same share of their channels, or whole heads stay.

A channel is as important as the weights that write and read it are large, each layer's relative to its own
mean, so that no layer outvotes the others. What stays is copied as it is: scaling it up for what was cut off
its inputs, as others do, starts a student farther from its teacher.

Axes: H outputs of a layer, C channels, T timesteps.

References
----------
Fang et al., "DepGraph: Towards Any Structural Pruning", CVPR 2023 (coupled channels, importance by group).
Samragh et al., "Weight subcloning: direct initialization of transformers using larger pretrained ones", 2023
(starting in the most important channels, there with scaling).
"""

import itertools
from collections.abc import Mapping

import torch
from diffusers import UNet2DConditionModel

from core.unet_layout import Channels, Layer, UNetLayout, heads_per_stage, unet_layout

TIMESTEPS = 1000  # of the noise schedules of all families
FITTED_TO_TIME = "time_embedding.linear_1"
TINY = 1e-20
NEGLIGIBLE = 1e-6  # singular values of the time features below this share of the largest are noise


def sliced_weights(student: UNet2DConditionModel, teacher: UNet2DConditionModel) -> dict[str, torch.Tensor]:
    """Return every tensor of a width student, cut out of the teacher's.

    Parameters
    ----------
    student, teacher
        U-Nets with the same blocks; every stage of the student has the same share of the teacher's channels.
    """
    whole_heads = heads_per_stage(student.config) != heads_per_stage(teacher.config)
    layout = unet_layout(teacher.config, whole_heads=whole_heads)
    theirs = teacher.state_dict()
    kept = choose_channels(layout, unet_layout(student.config, whole_heads=whole_heads), theirs)
    weights = {}
    for layer in layout.layers:
        weight = theirs[f"{layer.name}.weight"].index_select(0, _places(layer.outputs, kept))
        if layer.name == FITTED_TO_TIME:
            weight = _fit_to_time(weight, teacher, student)
        elif layer.inputs:
            weight = weight.index_select(1, _places(layer.inputs, kept))
        weights[f"{layer.name}.weight"] = weight
        if layer.bias:
            bias = theirs[f"{layer.name}.bias"]
            weights[f"{layer.name}.bias"] = bias.index_select(0, _places(layer.outputs, kept))
    return weights


def choose_channels(
    teacher: UNetLayout, student: UNetLayout, weights: Mapping[str, torch.Tensor]
) -> dict[Channels, torch.Tensor]:
    """Return the places of the channels that stay, ascending, for all channels of the teacher's layout.

    Parameters
    ----------
    teacher, student
        Layouts with the same layers.
    weights
        The teacher's state dict.
    """
    importance = channel_importance(teacher, weights)
    counts = {}
    for theirs, ours in zip(teacher.layers, student.layers, strict=True):
        counts.update(zip(_channels(theirs), _channels(ours), strict=True))
    return {
        channels: _most_important(channels, narrower.count, importance[channels])
        for channels, narrower in counts.items()
    }


def channel_importance(
    layout: UNetLayout, weights: Mapping[str, torch.Tensor]
) -> dict[Channels, torch.Tensor]:
    """Return how important each channel is: its weights' squares, relative to each layer's mean, summed."""
    importance: dict[Channels, torch.Tensor] = {}
    for layer in layout.layers:
        per_output, per_input = _summed_squares(weights[f"{layer.name}.weight"])
        for side, squares in ((layer.outputs, per_output), (layer.inputs, per_input)):
            for channels, part in zip(side, squares.split([each.count for each in side]), strict=True):
                relative = part / part.mean().clamp(min=TINY)
                importance[channels] = importance.get(channels, torch.zeros_like(part)) + relative
    return importance


def _summed_squares(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the squares of each output's weights, summed, and of each input's; a norm has no inputs."""
    squares = weight.float().square()
    if squares.ndim == 1:
        return squares, squares[:0]
    squares_HCX = squares.view(*squares.shape[:2], -1)  # X places of a kernel
    return squares_HCX.sum(dim=(1, 2)), squares_HCX.sum(dim=(0, 2))


def _most_important(channels: Channels, count: int, importance_C: torch.Tensor) -> torch.Tensor:
    """Return which `count` channels stay: between two edges the same share as everywhere.

    All edges fall on whole channels of the student, because its widths keep norm groups and heads whole.
    """
    if channels.fixed:
        return torch.arange(channels.count, device=importance_C.device)
    kept = []
    for start, end in itertools.pairwise(sorted({0, channels.count} | channels.edges)):
        stay = (end - start) * count // channels.count // channels.unit
        importance = importance_C[start:end].view(-1, channels.unit).sum(dim=1)
        units = importance.argsort(descending=True, stable=True)[:stay].sort().values
        within = torch.arange(channels.unit, device=units.device)
        kept.append(start + (units[:, None] * channels.unit + within).flatten())
    return torch.cat(kept)


def _fit_to_time(
    weight_HC: torch.Tensor, teacher: UNet2DConditionModel, student: UNet2DConditionModel
) -> torch.Tensor:
    """Return the weight with which the student's fewer sinusoids of time come closest to the teacher's.

    A narrower U-Net sees time through other frequencies, so that there are no columns to keep; but both
    know all timesteps there are: W' = argmin ‖φ'(t) W'ᵀ - φ(t) Wᵀ‖², over t in 0..T-1.
    """
    timestep_T = torch.arange(TIMESTEPS, device=weight_HC.device)
    theirs_TH = teacher.time_proj(timestep_T).double() @ weight_HC.T.double()
    ours_TC = student.time_proj(timestep_T).double()
    return (torch.linalg.pinv(ours_TC, rtol=NEGLIGIBLE) @ theirs_TH).T.to(weight_HC.dtype).contiguous()


def _places(parts: tuple[Channels, ...], kept: Mapping[Channels, torch.Tensor]) -> torch.Tensor:
    """Return the places that stay along an axis that runs over several channels side by side."""
    offsets = itertools.accumulate((part.count for part in parts), initial=0)
    return torch.cat([offset + kept[part] for offset, part in zip(offsets, parts, strict=False)])


def _channels(layer: Layer) -> tuple[Channels, ...]:
    return layer.outputs + layer.inputs
