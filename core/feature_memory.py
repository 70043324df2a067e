"""What matching features holds at the height of a step, counted from the layouts; free of torch.

Until the loss is there, the features of both U-Nets are held. What a down block or the last up block gives is
held anyway, because the next norm reads it; what another up block, a cross-attention or a projector gives is
held for the loss alone. The loss's own backward pass needs the difference at every point, in float32.
"""

import re
from collections.abc import Iterator

from core.method_spec import FeatureMatchingSpec
from core.unet_layout import Layer, UNetLayout
from core.unet_memory import FLOAT32_BYTES

BLOCK = re.compile(r"(?:down|up)_blocks\.\d+")
CROSS_ATTENTION = re.compile(r"(.*\.attentions\.\d+)\.transformer_blocks\.\d+\.attn2\.to_out\.0")


def feature_bytes(
    theirs: UNetLayout, ours: UNetLayout, features: FeatureMatchingSpec, compute_bytes: int
) -> int:
    """Return the bytes that one sample's features take, for one pass of both U-Nets.

    Parameters
    ----------
    theirs, ours
        Layouts of the teacher and of the student.
    features
        What is matched.
    compute_bytes
        Bytes of a value in the U-Nets: 4, or 2 under autocast.
    """
    if not features.weight and not features.direction_weight:
        return 0
    teacher_widths = {layer.name: _width(layer) for layer in theirs.layers}
    # Students of fewer blocks are as wide as their teacher; narrower ones have its every layer.
    is_narrower = _width(ours.layers[0]) < _width(theirs.layers[0])
    counted = 0
    for layer, is_held_anyway in _points(ours, features):
        width = teacher_widths[layer.name] if is_narrower else _width(layer)
        counted += layer.places * width * (FLOAT32_BYTES + compute_bytes)
        if is_narrower:
            counted += layer.places * width * compute_bytes
        if not is_held_anyway:
            counted += layer.places * _width(layer) * compute_bytes
    return counted


def _points(layout: UNetLayout, features: FeatureMatchingSpec) -> Iterator[tuple[Layer, bool]]:
    """Yield the layers whose outputs are compared, and whether something else needs each output, too."""
    blocks: dict[str, Layer] = {}
    attentions: dict[str, Layer] = {}
    for layer in layout.layers:
        if block := BLOCK.match(layer.name):
            blocks[block[0]] = layer
        if attention := CROSS_ATTENTION.match(layer.name):
            attentions[attention[1]] = layer
    last_block = list(blocks)[-1]
    yield from ((blocks[name], name.startswith("down") or name == last_block) for name in blocks)
    if features.cross_attention:
        yield from ((last, False) for last in attentions.values())


def _width(layer: Layer) -> int:
    return sum(part.count for part in layer.outputs)
