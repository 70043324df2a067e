"""Watches processes while they are under load: the processor time they use, and the memory they hold."""

import statistics
import threading
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

import psutil

SAMPLE_SECONDS = 1.0


class Sampling:
    """Samples processes for the length of a ``with`` block."""

    def __init__(self, processes: Mapping[str, psutil.Process]) -> None:
        self._processes = processes
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._memory: dict[str, list[int]] = {name: [] for name in processes}
        self._before: dict[str, float] = {}
        self._used: dict[str, float] = {}

    def __enter__(self) -> Self:
        self._began = time.monotonic()
        self._before = self._cpu()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        self._seconds = seconds = time.monotonic() - self._began
        self._used = {name: (used - self._before[name]) / seconds for name, used in self._cpu().items()}

    def found(self) -> dict[str, Any]:
        """Cores that each process used, and its memory at the beginning and the end, in MiB.

        Either is the median of a fifth of the samples, the beginning's after a fifth of the time.
        """
        memory = {}
        for name, samples in self._memory.items():
            fifth = max(len(samples) // 5, 1)
            begun, ended = samples[fifth : 2 * fifth] or samples, samples[-fifth:]
            memory[name] = [round(statistics.median(part) / 2**20, 1) for part in (begun, ended)]
        cores = {name: round(used, 2) for name, used in self._used.items()}
        return {"seconds": round(self._seconds, 1), "cores": cores, "memory_mib": memory}

    def _run(self) -> None:
        while not self._stop.is_set():
            for name, process in self._processes.items():
                self._memory[name].append(process.memory_info().rss)
            self._stop.wait(SAMPLE_SECONDS)

    def _cpu(self) -> dict[str, float]:
        return {name: _cpu_seconds(process) for name, process in self._processes.items()}


def _cpu_seconds(process: psutil.Process) -> float:
    """Processor time of a process; that of Postgres is its children's."""
    own = process.cpu_times()
    used = own.user + own.system
    if process.name() == "postgres":
        used += own.children_user + own.children_system
        for child in process.children():
            times = child.cpu_times()
            used += times.user + times.system
    return float(used)
