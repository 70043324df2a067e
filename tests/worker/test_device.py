"""What a worker finds to train on."""

import os
from pathlib import Path

import pytest

from worker.device import Device, find_device

ANSWER = """\
NVIDIA H100 80GB HBM3, 81559
NVIDIA H100 80GB HBM3, 81559
NVIDIA A2, 15356
"""


@pytest.fixture
def tool(tmp_path: Path) -> Path:
    """A driver's tool that answers as a real one does, and writes down what it was asked."""
    path = tmp_path / "nvidia-smi"
    path.write_text(f"#!/bin/sh\necho \"$@\" > {tmp_path}/asked\ncat <<'END'\n{ANSWER}END\n")
    path.chmod(0o755)
    return path


def test_accelerators_are_counted_by_the_name_of_the_first(tool: Path) -> None:
    environment = {"PATH": f"{tool.parent}:/bin:/usr/bin"}
    found = find_device(environment)
    assert found == Device("NVIDIA H100 80GB HBM3", count=2, memory_bytes=81_559 * 2**20)
    find_device(environment | {"CUDA_VISIBLE_DEVICES": "0,2"})
    assert "--id=0,2" in (tool.parent / "asked").read_text()


@pytest.mark.parametrize("hidden", ["", "-1"])
def test_hidden_accelerators_are_none(tool: Path, hidden: str) -> None:
    found = find_device({"PATH": str(tool.parent), "CUDA_VISIBLE_DEVICES": hidden})
    assert "H100" not in found.name


def test_a_tool_without_a_driver_leaves_the_processor(tool: Path) -> None:
    tool.write_text("#!/bin/sh\necho 'could not communicate with the driver'\nexit 9\n")
    found = find_device({"PATH": str(tool.parent)})
    assert found.name
    assert 1 <= found.count <= (os.cpu_count() or 1)
    assert found.memory_bytes is not None
    assert found.memory_bytes > 2**28
