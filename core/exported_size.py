"""How many bytes a student's weights take on disk, exactly, before there is a student; free of torch.

A safetensors file holds eight bytes of length, a JSON header padded with spaces to a multiple of eight bytes,
and the values in the order of the tensors' names.
"""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from core.original_names import original_names
from core.spec import ExportSpec
from core.unet_layout import UNetLayout

VALUE_BYTES = {"F32": 4, "F16": 2, "BF16": 2}
VARIANT_DTYPES = {"fp16": "F16", "bf16": "BF16"}
HEADER_ALIGNMENT = 8


def safetensors_size(layout: UNetLayout, dtype: str) -> int:
    """Return the bytes of a safetensors file of a U-Net's weights, as diffusers saves it in one file.

    The format: eight bytes of length, a JSON header padded with spaces to a multiple of eight bytes, and the
    values in the order of the tensors' names.
    """
    return _file_bytes(layout.shapes, dtype)


def exported_unet_bytes(layout: UNetLayout, stored: str, export: ExportSpec) -> int:
    """Return the bytes of all files that hold the U-Net: its own, one a variant, one under original names."""
    precisions = [stored, *(VARIANT_DTYPES[variant] for variant in export.variants)]
    total = sum(_file_bytes(layout.shapes, precision) for precision in precisions)
    if export.single_file:
        names = original_names(layout.shapes)
        total += _file_bytes({names[name]: shape for name, shape in layout.shapes.items()}, "F16")
    return total


def _file_bytes(shapes: Mapping[str, Sequence[int]], dtype: str) -> int:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in sorted(shapes.items()):
        start, end = end, end + VALUE_BYTES[dtype] * math.prod(shape)
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}
    header_bytes = len(json.dumps(header, separators=(",", ":")))
    return 8 + math.ceil(header_bytes / HEADER_ALIGNMENT) * HEADER_ALIGNMENT + end
