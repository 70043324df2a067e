"""The weight files of a teacher's parts: which they are, and what their headers say; free of torch."""

import json
import math
from pathlib import Path
from typing import Any

from core.errors import BadTeacherError
from core.teacher_files import plain_weights

UNET_DTYPES = ("F32", "F16", "BF16")  # what a student can be saved in, by safetensors' names
MAX_HEADER_BYTES = 100 * 10**6  # as the format has it


def weight_files(component: Path) -> list[Path]:
    """Return the safetensors files of one component of a pipeline, shards in order.

    Where full precision and a variant such as ``fp16`` lie side by side, the variant is left out.
    """
    names = [file.name for file in component.iterdir()] if component.is_dir() else []
    return [component / name for name in plain_weights(f"{component.parent.name}/{component.name}", names)]


def has_weights(component: Path) -> bool:
    """Tell whether a component has weights that `weight_files` returns."""
    try:
        return bool(weight_files(component))
    except BadTeacherError:
        return False


def safetensors_header(path: Path) -> dict[str, Any]:
    """Return the JSON header of a safetensors file: dtype, shape and place of every tensor."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        text = file.read(min(length, MAX_HEADER_BYTES))
    try:
        header = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadTeacherError(f"{path.name} is not a safetensors file") from error
    if len(text) != length or not isinstance(header, dict):
        raise BadTeacherError(f"{path.name} is not a safetensors file")
    header.pop("__metadata__", None)
    if not all(map(_describes_tensor, header.values())):
        raise BadTeacherError(f"{path.name} is not a safetensors file: its header lacks dtypes and shapes")
    return header


def unet_dtype(teacher: Path) -> str:
    """Return the dtype, by safetensors' name, that the first tensor of a teacher's U-Net is stored in.

    Raises
    ------
    BadTeacherError
        If a tensor is of a dtype that no student can be saved in, or there is no tensor.
    """
    headers = map(safetensors_header, weight_files(teacher / "unet"))
    dtypes: list[str] = [tensor["dtype"] for header in headers for tensor in header.values()]
    if not dtypes:
        raise BadTeacherError(f"the weight files of {teacher.name}'s U-Net hold no tensor")
    if unsupported := sorted(set(dtypes).difference(UNET_DTYPES)):
        raise BadTeacherError(
            f"{teacher.name}'s U-Net has weights stored as {', '.join(unsupported)}",
            f"convert the U-Net's weights; supported: {', '.join(UNET_DTYPES)}",
        )
    return dtypes[0]


def count_parameters(path: Path) -> int:
    """Return the number of values in a safetensors file."""
    return sum(math.prod(tensor["shape"]) for tensor in safetensors_header(path).values())


def _describes_tensor(entry: Any) -> bool:
    return isinstance(entry, dict) and (
        isinstance(entry.get("dtype"), str)
        and isinstance(entry.get("shape"), list)
        and all(isinstance(size, int) for size in entry["shape"])
    )
