"""Paths that the system gives an error for."""

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


def refuse(patches: pytest.MonkeyPatch, refused: Path, number: int) -> None:
    """Let the system give this error for one path: who runs the tests may be allowed to read everything."""

    def refusing(function: Callable[..., Any]) -> Callable[..., Any]:
        def refuse(path: Any, *arguments: Any, **options: Any) -> Any:
            if not isinstance(path, int) and os.fspath(path) == str(refused):
                raise OSError(number, os.strerror(number), str(path))
            return function(path, *arguments, **options)

        return refuse

    for module, name in ((io, "open"), (os, "scandir"), (os, "stat")):
        patches.setattr(module, name, refusing(getattr(module, name)))
