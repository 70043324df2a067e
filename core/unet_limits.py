"""The numbers that a teacher's U-Net config may hold, checked where it is read; free of torch.

Configs come with teachers that users name. Whoever lays a U-Net out, or lists its students, relies on these
numbers and walks through all that they ask for, in the API process too.
"""

from collections.abc import Mapping
from typing import Any

from core.errors import BadTeacherError
from core.unet_layout import MID_BLOCK, heads_per_stage, layers_per_stage, transformer_layers_per_stage

DEFAULTS = {  # of diffusers, for configs that do not say
    "in_channels": 4,
    "out_channels": 4,
    "layers_per_block": 2,
    "transformer_layers_per_block": 1,
    "attention_head_dim": 8,
    "cross_attention_dim": 1280,
    "norm_num_groups": 32,
}
STAGES = (1, 16)
PER_STAGE = {  # one number for all stages, or a list of one a stage
    "block_out_channels": (1, 2**16),
    "layers_per_block": (1, 16),
    "transformer_layers_per_block": (0, 100),
    "attention_head_dim": (1, 256),
    "cross_attention_dim": (1, 2**16),
}
SINGLE = {
    "norm_num_groups": (1, 256),
    "sample_size": (1, 1_024),
    "in_channels": (1, 256),
    "out_channels": (1, 256),
}
OF_ADDED_CONDITIONS = {
    "projection_class_embeddings_input_dim": (1, 2**16),
    "addition_time_embed_dim": (1, 2**16),
}
MOST_LAYERS_LISTED = 10_000
"""Residual and transformer layers of all students together: listing them takes seconds. SDXL's have 800."""


def check_numbers(unet_config: Mapping[str, Any]) -> None:
    """Refuse a config, completed by `DEFAULTS`, with a number that no U-Net has.

    Raises
    ------
    BadTeacherError
        It says which, and what can be.
    """
    for name, limits in PER_STAGE.items():
        value = unet_config[name]
        for number in value if isinstance(value, list) else [value]:
            _check_number(name, number, limits)
    added = OF_ADDED_CONDITIONS if unet_config.get("addition_embed_type") == "text_time" else {}
    for name, limits in (SINGLE | added).items():
        if name in unet_config or name in added:
            _check_number(name, unet_config.get(name), limits)
    _check_stages(unet_config)
    _check_divisions(unet_config)
    _check_listing(unet_config)


def check_latents(unet_config: Mapping[str, Any], vae_config: Mapping[str, Any] | None, name: str) -> None:
    """Refuse a U-Net that takes or predicts anything but latents of its teacher's autoencoder.

    Parameters
    ----------
    unet_config
        The U-Net's config, completed by `DEFAULTS`.
    vae_config
        The autoencoder's, where the teacher's folder has one.
    name
        What to call the teacher.

    Raises
    ------
    BadTeacherError
        If it does.
    """
    taken, predicted = unet_config["in_channels"], unet_config["out_channels"]
    latents = taken if vae_config is None else vae_config.get("latent_channels", 4)
    if not taken == predicted == latents:
        raise BadTeacherError(
            f"{name}'s U-Net has in_channels {taken} and out_channels {predicted}, and its autoencoder "
            f"latent_channels {latents!r}: all three must be the same",
            "use a teacher that draws from text alone, not one that inpaints",
        )


def _check_number(name: str, value: Any, limits: tuple[int, int]) -> None:
    least, most = limits
    if type(value) is not int or not least <= value <= most:
        raise BadTeacherError(f"the teacher's U-Net has {name} {value!r}; {least} to {most} can be")


def _check_stages(unet_config: Mapping[str, Any]) -> None:
    """Refuse lists that do not have one entry for each stage."""
    stages = len(unet_config["block_out_channels"])
    least, most = STAGES
    if not least <= stages <= most or any(
        len(unet_config[name]) != stages for name in ("down_block_types", "up_block_types")
    ):
        raise BadTeacherError(
            f"the teacher's U-Net has {stages} block_out_channels; {least} to {most} can be, "
            "and as many down_block_types and up_block_types"
        )
    for name in PER_STAGE:
        value = unet_config[name]
        if isinstance(value, list) and len(value) != stages:
            raise BadTeacherError(
                f"the teacher's U-Net has {name} {value!r}; one number can be, or one for each of its "
                f"{stages} stages"
            )


def _check_divisions(unet_config: Mapping[str, Any]) -> None:
    """Refuse channels that cannot be divided among the groups of a norm, or the heads of an attention."""
    channels, groups = unet_config["block_out_channels"], unet_config["norm_num_groups"]
    kinds = zip(unet_config["down_block_types"], reversed(unet_config["up_block_types"]), strict=True)
    attends = ["CrossAttn" in down or "CrossAttn" in up for down, up in kinds]
    attends[-1] |= unet_config.get("mid_block_type", MID_BLOCK) is not None
    for count, heads, is_attending in zip(channels, heads_per_stage(unet_config), attends, strict=True):
        divisors = {"norm_num_groups": groups, "attention_head_dim": heads if is_attending else 1}
        for name, parts in divisors.items():
            if count % parts:
                raise BadTeacherError(
                    f"the teacher's U-Net has {name} {parts}, by which {count}, one of its "
                    "block_out_channels, cannot be divided"
                )


def _check_listing(unet_config: Mapping[str, Any]) -> None:
    """Refuse a U-Net of so many layers, in so many widths, that listing its students takes minutes."""
    widths = min(unet_config["block_out_channels"]) // unet_config["norm_num_groups"]
    depths = transformer_layers_per_stage(unet_config)
    layers = sum(
        (2 * count + 1) * (1 + depth)
        for count, depth in zip(layers_per_stage(unet_config), depths, strict=True)
    )
    if widths * layers > MOST_LAYERS_LISTED:
        raise BadTeacherError(
            f"the teacher's U-Net has {layers} residual and transformer layers, and {widths} channels in a "
            f"group of its narrowest norm; the product can be {MOST_LAYERS_LISTED}"
        )
