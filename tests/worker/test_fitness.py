"""Whether a worker sees that its machine is not fit for a job any more."""

from functools import partial
from pathlib import Path

import pytest

from worker.device import Device, find_device
from worker.fitness import AcceleratorWatch, needs_accelerator


class Clock:
    """Seconds that the test decides."""

    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def test_an_accelerator_that_vanishes_is_missed_until_it_is_back(nvidia_smi: Path) -> None:
    find = partial(find_device, {"PATH": f"{nvidia_smi.parent}:/bin:/usr/bin"})
    clock, asked = Clock(), nvidia_smi.parent / "asked"
    watch = AcceleratorWatch(find(), find, clock)
    assert watch.lack() is None
    asked.unlink()
    assert watch.lack() is None
    assert not asked.exists(), "of hints that come together one has the tool asked"

    answer = nvidia_smi.read_text()
    nvidia_smi.write_text("#!/bin/sh\necho 'Failed to initialize NVML: Unknown Error'\nexit 255\n")
    clock.seconds += 60
    for _ in range(2):
        lack = watch.lack()
        assert lack is not None
        assert lack.startswith("this worker started with 2 x NVIDIA H100 80GB HBM3, and now there is")
    nvidia_smi.write_text(answer.replace("NVIDIA H100 80GB HBM3, 81559\n", "", 1))
    lack = watch.lack()
    assert lack is not None
    assert lack.endswith("now there is 1 x NVIDIA H100 80GB HBM3")
    nvidia_smi.write_text(answer)
    assert watch.lack() is None


@pytest.mark.parametrize(
    ("is_accelerator", "torch", "is_needed"),
    [
        (True, "2.13.0", True),
        (True, "2.13.0+cu130", True),
        (True, "2.13.0+cpu", False),
        (False, "2.13.0", False),
    ],
)
def test_a_torch_for_processors_alone_needs_no_accelerator(
    monkeypatch: pytest.MonkeyPatch, is_accelerator: bool, torch: str, is_needed: bool
) -> None:
    monkeypatch.setattr("worker.fitness.version", {"torch": torch}.__getitem__)
    assert needs_accelerator(Device("d", is_accelerator, count=1, memory_bytes=None)) == is_needed
