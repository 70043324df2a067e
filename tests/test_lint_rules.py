"""The linter finds what could read a pickle, wherever it stands."""

import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
READERS = [
    "import pickle",
    "import _pickle",
    "import marshal",
    "import shelve",
    "import dill",
    "import cloudpickle",
    "from joblib import load",
    "import torch\n\ntorch.load('x')",
    "import numpy as np\n\nnp.load('x', allow_pickle=True)",
    "import numpy\n\nnumpy.load('x')",
    "from numpy import load",
]


@pytest.mark.parametrize("program", READERS, ids=range(len(READERS)))
@pytest.mark.parametrize("place", ["core/x.py", "tests/core/test_x.py", "benchmarks/x.py"])
def test_readers_of_pickles_are_found(program: str, place: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "--no-cache", "--stdin-filename", place, "-"],
        input=f"{program}\n",
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
    )
    assert ended.returncode == 1
    assert "TID251" in ended.stdout
