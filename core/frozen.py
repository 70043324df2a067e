"""Loading the models that are only ever used, never trained: from safetensors, whole, in float32."""

from pathlib import Path
from typing import Any

import torch

from core.errors import BadTeacherError
from core.weight_files import weight_files


def load_frozen(model_class: type[Any], folder: Path) -> Any:
    """Load one model of a teacher's folder.

    Parameters
    ----------
    model_class
        A model class of diffusers or transformers.
    folder
        Its config and weights.

    Raises
    ------
    BadTeacherError
        If its weights are pickled, or some are missing.
    """
    weight_files(folder)  # says so if there is nothing but pickled weights
    model, loading = model_class.from_pretrained(
        folder, use_safetensors=True, torch_dtype=torch.float32, output_loading_info=True
    )
    if missing := sorted(loading["missing_keys"]):
        raise BadTeacherError(f"{folder.name} lacks {len(missing)} weights, among them {missing[0]}")
    return model.eval().requires_grad_(False)
