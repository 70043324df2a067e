"""What a worker trains on, asked of the system: the worker's process has no torch and must not touch CUDA."""

import os
import platform
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_QUERY = ("--query-gpu=name,memory.total", "--format=csv,noheader,nounits")
_QUERY_SECONDS = 30
_MIB = 2**20


@dataclass(frozen=True)
class Device:
    """Accelerators, or the processor where there are none.

    Attributes
    ----------
    name
        As its maker calls it.
    is_accelerator
        Whether it is one, or the processor.
    count
        How many accelerators of that name a trainer sees, or cores of the processor.
    memory_bytes
        Of one accelerator, or of the host; None where the system does not tell.
    """

    name: str
    is_accelerator: bool
    count: int
    memory_bytes: int | None


def find_device(environment: Mapping[str, str] = os.environ) -> Device:
    """Find what a trainer that is started from here will use.

    Parameters
    ----------
    environment
        ``CUDA_VISIBLE_DEVICES`` of it hides accelerators from the trainer, and so from this answer.
    """
    return _accelerators(environment) or _processor()


def _accelerators(environment: Mapping[str, str]) -> Device | None:
    """Ask the driver's own tool; None where there is no such tool, or it finds nothing."""
    tool = shutil.which("nvidia-smi", path=environment.get("PATH"))
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    if tool is None or visible in {"", "-1"}:
        return None
    chosen = [] if visible is None else [f"--id={visible}"]
    try:
        answer = subprocess.run(  # noqa: S603  # the driver's own tool, no shell
            [tool, *_QUERY, *chosen], capture_output=True, text=True, check=True, timeout=_QUERY_SECONDS
        )
    except (OSError, subprocess.SubprocessError):  # no driver behind the tool, or one that hangs
        return None
    found = [line.rpartition(",") for line in answer.stdout.splitlines() if "," in line]
    if not found:
        return None
    name, _, mebibytes = found[0]
    count = sum(other == name for other, _, _ in found)
    memory = int(mebibytes) * _MIB if mebibytes.strip().isdecimal() else None
    return Device(name.strip(), is_accelerator=True, count=count, memory_bytes=memory)


def _processor() -> Device:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Device(_processor_name(), is_accelerator=False, count=cores, memory_bytes=_host_memory())


def _processor_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, "") or platform.processor() or platform.machine()


def _host_memory() -> int | None:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return None
