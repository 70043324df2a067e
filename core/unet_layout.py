"""The layout of a diffusers U-Net, from its config alone: every layer, and what its weight's axes run over.

From the layout follow the parameters and multiply-accumulates of a U-Net that nobody has built, and which
channels must be kept or dropped together when one is made narrower. Channels are one object wherever they
flow unchanged: a residual stream is the same `Channels` in every layer that writes to it or reads from it.
This module is free of torch.

Counts are of one forward pass of one sample at the config's ``sample_size``, or at 64 where it has none.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from core.errors import BadTeacherError

MID_BLOCK = "UNetMidBlock2DCrossAttn"
SUPPORTED_VALUES: dict[str, tuple[Any, ...]] = {
    "mid_block_type": (MID_BLOCK, None),
    "only_cross_attention": (False,),
    "dual_cross_attention": (False,),
    "encoder_hid_dim_type": (None,),
    "encoder_hid_dim": (None,),
    "class_embed_type": (None,),
    "num_class_embeds": (None,),
    "addition_embed_type": (None, "text_time"),
    "resnet_time_scale_shift": ("default",),
    "time_embedding_type": ("positional",),
    "time_embedding_dim": (None,),
    "time_cond_proj_dim": (None,),
    "conv_in_kernel": (3,),
    "conv_out_kernel": (3,),
    "attention_type": ("default",),
    "reverse_transformer_layers_per_block": (None,),
}
SUPPORTED_BLOCKS = {"DownBlock2D", "CrossAttnDownBlock2D", "UpBlock2D", "CrossAttnUpBlock2D"}
TIME_EMBEDDING_RATIO = 4  # width of the time embedding over the width of the first stage
FEED_FORWARD_RATIO = 4
DEFAULT_SIZE = 64


@dataclass(eq=False)
class Channels:
    """Channels that are kept or dropped together wherever they appear.

    Attributes
    ----------
    count
        How many there are.
    fixed
        Whether they belong to the outside (latents, text), so that all are kept.
    unit
        How many neighbours are kept or dropped as one: 1, or the width of a head.
    edges
        Where groups of a norm, or heads, begin and end; every group keeps the same share of its channels.
    """

    count: int
    fixed: bool = False
    unit: int = 1
    edges: set[int] = field(default_factory=set)


@dataclass(frozen=True)
class Layer:
    """One layer with weights.

    Attributes
    ----------
    name
        Its module's name in the U-Net.
    kind
        What it is. A norm has no inputs but its channels.
    outputs, inputs
        What the axes of its weight run over; several channels side by side where it reads a concatenation.
    bias
        Whether it has one.
    kernel
        Side of a convolution's kernel.
    places
        At how many places of one sample it is applied: pixels, tokens, or once.
    """

    name: str
    kind: Literal["linear", "convolution", "norm"]
    outputs: tuple[Channels, ...]
    inputs: tuple[Channels, ...] = ()
    bias: bool = True
    kernel: int = 1
    places: int = 1

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of each tensor, by its name in the state dict."""
        outputs, inputs = _count(self.outputs), _count(self.inputs)
        kernel = (self.kernel, self.kernel) if self.kind == "convolution" else ()
        weight = (outputs,) if self.kind == "norm" else (outputs, inputs, *kernel)
        return {f"{self.name}.weight": weight} | ({f"{self.name}.bias": (outputs,)} if self.bias else {})

    @property
    def multiply_accumulates(self) -> int:
        """Those of its weight; norms are not counted."""
        return 0 if self.kind == "norm" else self.places * math.prod(self.shapes[f"{self.name}.weight"])


@dataclass(frozen=True)
class Attention:
    """The two products of one attention: queries with keys, and weights with values."""

    queries: int
    keys: int
    channels: int

    @property
    def multiply_accumulates(self) -> int:
        """Those of both products, over all heads."""
        return 2 * self.queries * self.keys * self.channels


@dataclass(frozen=True)
class UNetLayout:
    """All layers of a U-Net in the order in which a sample passes them."""

    layers: list[Layer]
    attentions: list[Attention]

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of every tensor of the state dict."""
        return {name: shape for layer in self.layers for name, shape in layer.shapes.items()}

    @property
    def parameters(self) -> int:
        """Number of parameters."""
        return sum(map(math.prod, self.shapes.values()))

    @property
    def layer_multiply_accumulates(self) -> int:
        """Multiply-accumulates of the linear and convolution layers, which is how students are compared."""
        return sum(layer.multiply_accumulates for layer in self.layers)

    @property
    def multiply_accumulates(self) -> int:
        """Multiply-accumulates of the layers and of the attentions' own products."""
        products = sum(attention.multiply_accumulates for attention in self.attentions)
        return self.layer_multiply_accumulates + products


def check_unet(unet_config: Mapping[str, Any]) -> None:
    """Refuse a U-Net with parts that no known family has.

    Raises
    ------
    BadTeacherError
        It names them.
    """
    blocks = [*unet_config["down_block_types"], *unet_config["up_block_types"]]
    settings = {name: unet_config.get(name, values[0]) for name, values in SUPPORTED_VALUES.items()}
    unknown = [f"{name} {value!r}" for name, value in settings.items() if value not in SUPPORTED_VALUES[name]]
    unknown += [f"a {block}" for block in dict.fromkeys(blocks) if block not in SUPPORTED_BLOCKS]
    if unknown:
        raise BadTeacherError(
            f"the teacher's U-Net has {' and '.join(unknown)}, as no supported family has",
            "use a teacher of Stable Diffusion 1, 2 or XL",
        )


def unet_layout(
    unet_config: Mapping[str, Any], *, prompt_tokens: int = 77, whole_heads: bool = False
) -> UNetLayout:
    """Lay out a U-Net that `check_unet` lets pass.

    Parameters
    ----------
    unet_config
        Config as diffusers writes it.
    prompt_tokens
        Length of the text condition; only the counts of multiply-accumulates depend on it.
    whole_heads
        Whether narrower attentions have fewer heads of the same width, rather than narrower ones.
    """
    walk = _Walk(unet_config, prompt_tokens, whole_heads)
    walk.unet()
    return UNetLayout(walk.layers, walk.attentions)


def heads_per_stage(unet_config: Mapping[str, Any]) -> list[int]:
    """Return the number of attention heads of each stage.

    Configs of these families call it ``attention_head_dim``: one number for all stages, or one a stage.
    """
    return _per_stage(unet_config, "attention_head_dim", 8)


def layers_per_stage(unet_config: Mapping[str, Any]) -> list[int]:
    """Return the number of layers of each stage's down block; its up block has one more."""
    return _per_stage(unet_config, "layers_per_block", 2)


def transformer_layers_per_stage(unet_config: Mapping[str, Any]) -> list[int]:
    """Return the number of transformer layers of each attention of each stage."""
    return _per_stage(unet_config, "transformer_layers_per_block", 1)


class _Walk:
    """Follows a sample through the U-Net and writes down every layer it meets."""

    def __init__(self, config: Mapping[str, Any], prompt_tokens: int, whole_heads: bool) -> None:
        self.config = config
        self.groups = config.get("norm_num_groups", 32)
        self.whole_heads = whole_heads
        self.prompt_tokens = prompt_tokens
        self.text = [Channels(count, fixed=True) for count in _per_stage(config, "cross_attention_dim", 1280)]
        self.projection: Literal["linear", "convolution"] = (
            "linear" if config.get("use_linear_projection", False) else "convolution"
        )
        self.layers: list[Layer] = []
        self.attentions: list[Attention] = []

    def unet(self) -> None:
        """Follow a sample from the noisy latent to the prediction."""
        config = self.config
        channels: list[int] = list(config["block_out_channels"])
        sizes = [config.get("sample_size") or DEFAULT_SIZE]
        for _ in channels[1:]:
            sizes.append((sizes[-1] + 1) // 2)  # a convolution of stride 2, padded by 1
        layers = layers_per_stage(config)
        depths, heads = transformer_layers_per_stage(config), heads_per_stage(config)
        self.time = self._time_embedding(channels[0])

        latent = Channels(config.get("in_channels", 4), fixed=True)
        stream = self._convolution("conv_in", (latent,), channels[0], sizes[0])
        skips = [stream]
        for stage, kind in enumerate(config["down_block_types"]):
            block, depth = f"down_blocks.{stage}", depths[stage] if "CrossAttn" in kind else 0
            for place in range(layers[stage]):
                stream = self._resnet(f"{block}.resnets.{place}", (stream,), channels[stage], sizes[stage])
                self._transformer(
                    f"{block}.attentions.{place}", stream, depth, heads[stage], stage, sizes[stage]
                )
                skips.append(stream)
            if stage < len(channels) - 1:
                name = f"{block}.downsamplers.0.conv"
                stream = self._convolution(name, (stream,), channels[stage], sizes[stage + 1])
                skips.append(stream)

        if config.get("mid_block_type", MID_BLOCK):
            width, size = channels[-1], sizes[-1]
            stream = self._resnet("mid_block.resnets.0", (stream,), width, size)
            self._transformer("mid_block.attentions.0", stream, depths[-1], heads[-1], -1, size)
            stream = self._resnet("mid_block.resnets.1", (stream,), width, size)

        for place_of_block, kind in enumerate(config["up_block_types"]):
            stage = len(channels) - 1 - place_of_block
            block, depth = f"up_blocks.{place_of_block}", depths[stage] if "CrossAttn" in kind else 0
            for place in range(layers[stage] + 1):
                inputs = (stream, skips.pop())
                stream = self._resnet(f"{block}.resnets.{place}", inputs, channels[stage], sizes[stage])
                self._transformer(
                    f"{block}.attentions.{place}", stream, depth, heads[stage], stage, sizes[stage]
                )
            if stage > 0:
                name = f"{block}.upsamplers.0.conv"
                stream = self._convolution(name, (stream,), channels[stage], sizes[stage - 1])

        self._group_norm("conv_norm_out", (stream,), sizes[0])
        prediction = Channels(config.get("out_channels", 4), fixed=True)
        self._add("conv_out", "convolution", (prediction,), (stream,), kernel=3, places=sizes[0] ** 2)

    def _time_embedding(self, width: int) -> Channels:
        embedding = Channels(TIME_EMBEDDING_RATIO * width)
        sources = {"time_embedding": Channels(width)}
        if self.config.get("addition_embed_type") == "text_time":
            added = Channels(self.config["projection_class_embeddings_input_dim"], fixed=True)
            sources["add_embedding"] = added
        for name, source in sources.items():
            hidden = Channels(embedding.count)
            self._add(f"{name}.linear_1", "linear", (hidden,), (source,))
            self._add(f"{name}.linear_2", "linear", (embedding,), (hidden,))
        return embedding

    def _convolution(self, name: str, inputs: tuple[Channels, ...], width: int, size: int) -> Channels:
        output = Channels(width)
        self._add(name, "convolution", (output,), inputs, kernel=3, places=size**2)
        return output

    def _resnet(self, name: str, inputs: tuple[Channels, ...], width: int, size: int) -> Channels:
        self._group_norm(f"{name}.norm1", inputs, size)
        hidden = self._convolution(f"{name}.conv1", inputs, width, size)
        self._add(f"{name}.time_emb_proj", "linear", (hidden,), (self.time,))
        self._group_norm(f"{name}.norm2", (hidden,), size)
        needs_shortcut = _count(inputs) != width
        output = Channels(width) if needs_shortcut else inputs[0]
        self._add(f"{name}.conv2", "convolution", (output,), (hidden,), kernel=3, places=size**2)
        if needs_shortcut:
            self._add(f"{name}.conv_shortcut", "convolution", (output,), inputs, places=size**2)
        return output

    def _transformer(
        self, name: str, stream: Channels, depth: int, heads: int, stage: int, size: int
    ) -> None:
        """Follow the stream through the transformer layers that are added to it, if there are any."""
        if not depth:
            return
        places, inner = size**2, Channels(stream.count)
        self._group_norm(f"{name}.norm", (stream,), size)
        self._add(f"{name}.proj_in", self.projection, (inner,), (stream,), places=places)
        for layer in range(depth):
            block = f"{name}.transformer_blocks.{layer}"
            self._add(f"{block}.norm1", "norm", (inner,), places=places)
            self._attention(f"{block}.attn1", inner, inner, heads, places, places)
            self._add(f"{block}.norm2", "norm", (inner,), places=places)
            self._attention(f"{block}.attn2", inner, self.text[stage], heads, places, self.prompt_tokens)
            self._add(f"{block}.norm3", "norm", (inner,), places=places)
            hidden = Channels(FEED_FORWARD_RATIO * inner.count)
            # GEGLU: the values, and their gates side by side with them
            self._add(f"{block}.ff.net.0.proj", "linear", (hidden, hidden), (inner,), places=places)
            self._add(f"{block}.ff.net.2", "linear", (inner,), (hidden,), places=places)
        self._add(f"{name}.proj_out", self.projection, (stream,), (inner,), places=places)

    def _attention(
        self, name: str, inner: Channels, context: Channels, heads: int, places: int, context_places: int
    ) -> None:
        if self.whole_heads:
            matched = values = Channels(inner.count, unit=inner.count // heads)
        else:
            edges = {head * inner.count // heads for head in range(heads + 1)}
            matched, values = Channels(inner.count, edges=edges), Channels(inner.count, edges=edges)
        self._add(f"{name}.to_q", "linear", (matched,), (inner,), bias=False, places=places)
        self._add(f"{name}.to_k", "linear", (matched,), (context,), bias=False, places=context_places)
        self._add(f"{name}.to_v", "linear", (values,), (context,), bias=False, places=context_places)
        self._add(f"{name}.to_out.0", "linear", (inner,), (values,), places=places)
        self.attentions.append(Attention(places, context_places, inner.count))

    def _group_norm(self, name: str, inputs: tuple[Channels, ...], size: int) -> None:
        """Write down a norm, and in each of its inputs the edges of the groups that reach into it."""
        self._add(name, "norm", inputs, places=size**2)
        total = _count(inputs)
        offset = 0
        for part in inputs:
            edges = (group * total // self.groups - offset for group in range(self.groups + 1))
            part.edges.update(edge for edge in edges if 0 < edge < part.count)
            offset += part.count

    def _add(
        self,
        name: str,
        kind: Literal["linear", "convolution", "norm"],
        outputs: tuple[Channels, ...],
        inputs: tuple[Channels, ...] = (),
        **details: Any,
    ) -> None:
        self.layers.append(Layer(name, kind, outputs, inputs, **details))


def _per_stage(unet_config: Mapping[str, Any], name: str, default: int) -> list[int]:
    value = unet_config.get(name, default)
    return [value] * len(unet_config["block_out_channels"]) if isinstance(value, int) else list(value)


def _count(channels: tuple[Channels, ...]) -> int:
    return sum(part.count for part in channels)
