"""Arrays in files of numpy's own format: numbers alone, never the pickles that the format also knows."""

from pathlib import Path
from typing import Any

import numpy as np


def load_array(path: Path) -> np.ndarray[Any, Any]:
    """Read an array of numbers."""
    array: np.ndarray[Any, Any] = np.load(path, allow_pickle=False)  # noqa: TID251  # the one place
    return array


def save_array(path: Path, array: np.ndarray[Any, Any]) -> None:
    """Write an array of numbers."""
    np.save(path, array, allow_pickle=False)  # noqa: TID251  # the one place
