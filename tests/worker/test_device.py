"""What a worker finds to train on."""

import os
from pathlib import Path

import pytest

from worker.device import Device, find_device


def test_accelerators_are_counted_by_the_name_of_the_first(nvidia_smi: Path) -> None:
    environment = {"PATH": f"{nvidia_smi.parent}:/bin:/usr/bin"}
    found = find_device(environment)
    assert found == Device("NVIDIA H100 80GB HBM3", is_accelerator=True, count=2, memory_bytes=81_559 * 2**20)
    find_device(environment | {"CUDA_VISIBLE_DEVICES": "0,2"})
    assert "--id=0,2" in (nvidia_smi.parent / "asked").read_text()


@pytest.mark.parametrize("hidden", ["", "-1"])
def test_hidden_accelerators_are_none(nvidia_smi: Path, hidden: str) -> None:
    found = find_device({"PATH": str(nvidia_smi.parent), "CUDA_VISIBLE_DEVICES": hidden})
    assert "H100" not in found.name


def test_a_tool_without_a_driver_leaves_the_processor(nvidia_smi: Path) -> None:
    nvidia_smi.write_text("#!/bin/sh\necho 'could not communicate with the driver'\nexit 9\n")
    found = find_device({"PATH": str(nvidia_smi.parent)})
    assert found.name
    assert 1 <= found.count <= (os.cpu_count() or 1)
    assert found.memory_bytes is not None
    assert found.memory_bytes > 2**28
