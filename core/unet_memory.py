"""What the forward pass of a U-Net saves for its backward pass, counted from its layout; free of torch.

Autograd saves what each operation's derivative needs: of a norm, an activation, a linear layer and a
convolution its input, of an attention its queries, keys, values and output, of a gated feed-forward layer its
values, gates and activated gates. A tensor that several operations need is counted once.
"""

import re
from collections import defaultdict

from core.unet_layout import Layer, UNetLayout

FLOAT32_BYTES = 4
# What diffusers computes again: every residual block but the middle's first, and every transformer block.
RECOMPUTED = re.compile(
    r"(?:down|up)_blocks\.\d+\.resnets\.\d+|mid_block\.resnets\.[1-9]|.*\.transformer_blocks\.\d+"
)


def saved_bytes(layout: UNetLayout, compute_bytes: int, norm_bytes: int = FLOAT32_BYTES) -> int:
    """Return how many bytes one sample's forward pass saves.

    Parameters
    ----------
    layout
        The U-Net.
    compute_bytes
        Bytes of a value in linear layers, convolutions and attentions: 4, or 2 under autocast.
    norm_bytes
        The same in norms and the activations behind them, which autocast leaves in float32 on accelerators
        and not on CPUs.
    """
    return sum(_layer_bytes(layer, compute_bytes, norm_bytes) for layer in layout.layers)


def checkpointed_bytes(layout: UNetLayout, compute_bytes: int, norm_bytes: int = FLOAT32_BYTES) -> int:
    """Return the most bytes that one sample's saved tensors take under gradient checkpointing.

    Of a module that is computed again only the input is saved, which is what its first norm reads; when the
    backward pass comes to it, what it saves by itself is there as well, of one such module at a time.

    Parameters
    ----------
    layout, compute_bytes, norm_bytes
        As of `saved_bytes`.
    """
    saved = 0
    recomputed: dict[str, int] = defaultdict(int)
    for layer in layout.layers:
        module = RECOMPUTED.match(layer.name)
        if module is None:
            saved += _layer_bytes(layer, compute_bytes, norm_bytes)
            continue
        if module[0] not in recomputed:
            saved += compute_bytes * layer.places * sum(part.count for part in layer.outputs)
        recomputed[module[0]] += _layer_bytes(layer, compute_bytes, norm_bytes)
    return saved + max(recomputed.values(), default=0)


def _layer_bytes(layer: Layer, compute_bytes: int, norm_bytes: int) -> int:
    width = norm_bytes if layer.kind == "norm" else compute_bytes
    return width * layer.places * _values_saved_at_a_place(layer)


def _values_saved_at_a_place(layer: Layer) -> int:
    outputs = sum(part.count for part in layer.outputs)
    inputs = sum(part.count for part in layer.inputs)
    if layer.kind == "norm":
        # Outside transformers an activation follows, which saves the norm's output.
        return outputs if ".attentions." in layer.name else 2 * outputs
    if layer.name.endswith("conv_shortcut"):
        return 0  # reads what the first norm reads
    if layer.name.endswith("to_q"):
        return inputs + outputs
    if layer.name.endswith(("to_k", "to_v")):
        return outputs  # reads what the queries' projection reads, or the text
    if layer.name.endswith("ff.net.0.proj"):
        return inputs + outputs + outputs // 2
    if ".downsamplers." in layer.name:
        return 4 * inputs  # four places of the input to one of the output
    return inputs
