"""The names of a U-Net's weights in the original Stable Diffusion code, which tools beside diffusers read.

They follow from diffusers' names alone, by how many layers each block has, so the mapping holds for students
too. A student without a mid block has no ``middle_block``; tools that take one for granted refuse it. This
module is free of torch.

References
----------
Rombach et al., "High-Resolution Image Synthesis with Latent Diffusion Models", CVPR 2022: the published code,
``ldm/modules/diffusionmodules/openaimodel.py``.
"""

from collections.abc import Iterable
from itertools import accumulate, count, takewhile

PREFIX = "model.diffusion_model."
OUTSIDE_BLOCKS = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "mid_block.resnets.0": "middle_block.0",
    "mid_block.attentions.0": "middle_block.1",
    "mid_block.resnets.1": "middle_block.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
INSIDE_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}


def original_names(names: Iterable[str]) -> dict[str, str]:
    """Return the original name of each of a U-Net's weights; inside attentions these are diffusers' own."""
    names = list(names)
    modules = {ancestor for name in names for ancestor in accumulate(name.split("."), "{}.{}".format)}
    original = OUTSIDE_BLOCKS | _encoder_names(modules) | _decoder_names(modules)
    return {name: PREFIX + _original_name(name, original) for name in names}


def _encoder_names(modules: set[str]) -> dict[str, str]:
    """Number all layers and downsamplers of the encoder in one sequence, which ``conv_in`` begins."""
    names, number = {}, 1
    for block in _present("down_blocks.{}", modules):
        for layer in _present(f"{block}.resnets.{{}}", modules):
            names[layer] = f"input_blocks.{number}.0"
            names[layer.replace("resnets", "attentions")] = f"input_blocks.{number}.1"
            number += 1
        if f"{block}.downsamplers.0" in modules:
            names[f"{block}.downsamplers.0.conv"] = f"input_blocks.{number}.0.op"
            number += 1
    return names


def _decoder_names(modules: set[str]) -> dict[str, str]:
    """Number the layers of the decoder; an upsampler is the last part of the last layer of its block."""
    names, number = {}, 0
    for block in _present("up_blocks.{}", modules):
        for layer in _present(f"{block}.resnets.{{}}", modules):
            names[layer] = f"output_blocks.{number}.0"
            names[layer.replace("resnets", "attentions")] = f"output_blocks.{number}.1"
            number += 1
        last = 2 if f"{block}.attentions.0" in modules else 1
        names[f"{block}.upsamplers.0.conv"] = f"output_blocks.{number - 1}.{last}.conv"
    return names


def _present(pattern: str, modules: set[str]) -> Iterable[str]:
    """Return the modules of a numbered row, from 0 to the last that there is."""
    return takewhile(modules.__contains__, map(pattern.format, count()))


def _original_name(name: str, original: dict[str, str]) -> str:
    module = next(module for module in original if name.startswith(f"{module}."))
    inside = name.removeprefix(f"{module}.")
    if "resnets" in module:
        layer, parameter = inside.split(".")
        inside = f"{INSIDE_RESNET[layer]}.{parameter}"
    return f"{original[module]}.{inside}"
