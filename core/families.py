"""The families of teachers that can be distilled: what their pipelines are made of, and what is refused.

A family is a diffusers pipeline around a U-Net whose every part is of one known class. Whatever else a folder
may ask for, such as code of its own or pickled weights, is refused with the reason. Nothing here loads a
model: this module is free of torch, because the API process lists teachers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from core.errors import BadTeacherError

FamilyName = Literal["sd1", "sd2", "sdxl"]
LIBRARIES = ("diffusers", "transformers")
PREDICTION_TYPES = ("epsilon", "v_prediction")


@dataclass(frozen=True)
class Family:
    """Teachers that are encoded, sampled and compressed alike.

    Attributes
    ----------
    name
        How specifications and answers call it.
    described
        How people call it.
    pipeline
        Class of the diffusers pipeline.
    linear_projections
        Whether the U-Net's transformers project linearly, or by 1-by-1 convolutions; None if either will do.
    parts
        Class of each part that is loaded, by its folder.
    """

    name: FamilyName
    described: str
    pipeline: str
    linear_projections: bool | None
    parts: Mapping[str, str]


SD_PARTS = {
    "unet": "UNet2DConditionModel",
    "vae": "AutoencoderKL",
    "tokenizer": "CLIPTokenizer",
    "text_encoder": "CLIPTextModel",
}
SDXL_PARTS = SD_PARTS | {"tokenizer_2": "CLIPTokenizer", "text_encoder_2": "CLIPTextModelWithProjection"}

FAMILIES = (
    Family("sd1", "Stable Diffusion 1", "StableDiffusionPipeline", False, SD_PARTS),
    Family("sd2", "Stable Diffusion 2", "StableDiffusionPipeline", True, SD_PARTS),
    Family("sdxl", "Stable Diffusion XL", "StableDiffusionXLPipeline", None, SDXL_PARTS),
)
SUPPORTED = "supported: " + ", ".join(f"{family.described} ({family.pipeline})" for family in FAMILIES)


def check_pipeline(index: Mapping[str, Any], name: str) -> None:
    """Refuse a pipeline of no known family, by its ``model_index.json`` alone.

    Parameters
    ----------
    index
        Content of ``model_index.json``.
    name
        What to call the teacher.

    Raises
    ------
    BadTeacherError
        If the pipeline is of another class, denoises with a transformer, lacks a part, or needs code of its
        own.
    """
    pipeline = index.get("_class_name")
    if isinstance(pipeline, list):  # how diffusers names a class in a file beside the weights
        raise BadTeacherError(
            f"{name} needs pipeline code of its own ({'.'.join(map(str, pipeline))}), which is never run",
            SUPPORTED,
        )
    if _class_of(index, "transformer"):
        raise BadTeacherError(
            f"{name} is a {pipeline}, which denoises with a transformer; only U-Nets can be distilled",
            SUPPORTED,
        )
    family = next((family for family in FAMILIES if family.pipeline == pipeline), None)
    if family is None:
        raise BadTeacherError(f"{name} is a {pipeline}, which cannot be distilled", SUPPORTED)
    for part, expected in family.parts.items():
        found = _known_class(index, part, name)
        if found.removesuffix("Fast") != expected:
            raise BadTeacherError(f"{name}'s {part} is a {found} instead of a {expected}", SUPPORTED)
    _known_class(index, "scheduler", name, libraries=("diffusers",))


def find_family(index: Mapping[str, Any], unet_config: Mapping[str, Any]) -> Family:
    """Return the family of a pipeline that `check_pipeline` let pass."""
    linear = bool(unet_config.get("use_linear_projection", False))
    return next(
        family
        for family in FAMILIES
        if family.pipeline == index["_class_name"] and family.linear_projections in (None, linear)
    )


def parts_of(name: FamilyName) -> Mapping[str, str]:
    """Return the class of each part that a family loads, by its folder."""
    return next(family.parts for family in FAMILIES if family.name == name)


def check_part_config(config: Mapping[str, Any], part: str, name: str) -> None:
    """Refuse a part whose own config asks for code or for a class that is not its family's.

    Parameters
    ----------
    config
        Content of the part's ``config.json`` or ``tokenizer_config.json``.
    part
        The part's folder.
    name
        What to call the teacher.
    """
    if "auto_map" in config:
        raise BadTeacherError(
            f"{name}'s {part} needs code of its own (auto_map), which is never run",
            "use a teacher whose parts are classes of diffusers and transformers",
        )
    for shift in ("latents_mean", "shift_factor"):
        if config.get(shift) is not None:
            raise BadTeacherError(
                f"{name}'s {part} shifts its latents ({shift}), which is not supported", SUPPORTED
            )
    tokenizer = config.get("tokenizer_class", "CLIPTokenizer")
    if tokenizer not in ("CLIPTokenizer", "CLIPTokenizerFast"):
        raise BadTeacherError(f"{name}'s {part} is a {tokenizer}; only CLIPTokenizer is known", SUPPORTED)


def check_scheduler_config(config: Mapping[str, Any], name: str) -> None:
    """Refuse a noise process other than DDPM's, or whose U-Net predicts neither noise nor velocity.

    Schedulers of other processes, such as EDM's and flow matching, have no betas.
    """
    if config.get("beta_schedule") is None and config.get("trained_betas") is None:
        raise BadTeacherError(
            f"{name}'s scheduler, a {config.get('_class_name')}, has no schedule of betas", SUPPORTED
        )
    prediction = config.get("prediction_type", "epsilon")
    if prediction not in PREDICTION_TYPES:
        raise BadTeacherError(
            f"{name} predicts {prediction!r}", f"supported prediction types: {', '.join(PREDICTION_TYPES)}"
        )
    if prediction == "epsilon" and config.get("rescale_betas_zero_snr"):
        raise BadTeacherError(
            f"{name} predicts the noise (epsilon) of a process that ends in noise alone "
            "(rescale_betas_zero_snr), from which no picture can be told",
            "use a teacher that predicts velocity (v_prediction), or one without rescale_betas_zero_snr",
        )


def _known_class(index: Mapping[str, Any], part: str, name: str, libraries: Sequence[str] = LIBRARIES) -> str:
    """Return the class of a part that the pipeline cannot do without."""
    named = _class_of(index, part)
    if named is None:
        raise BadTeacherError(f"{name} goes without a {part}: its index says {index.get(part)}", SUPPORTED)
    library, found = named
    if library not in libraries:
        raise BadTeacherError(
            f"{name}'s {part} needs code of its own ({library}.{found}), which is never run", SUPPORTED
        )
    return found


def _class_of(index: Mapping[str, Any], part: str) -> tuple[str, str] | None:
    """Return library and class of a part, or None where the index says nothing or that there is none."""
    entry = index.get(part)
    if not isinstance(entry, list) or len(entry) != 2 or entry[1] is None:
        return None
    return str(entry[0]), str(entry[1])
