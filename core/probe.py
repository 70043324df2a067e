"""How fast this machine is, measured on the very U-Nets of a job: ``python -m core.probe --spec spec.json``.

Both models are built with random weights, so that no checkpoint has to be fetched, and a few of the passes
that the job is made of are timed. What was measured is kept, because it holds for every job of the same
models on the same machine.
"""

import argparse
import hashlib
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from diffusers import UNet2DConditionModel

from core.conditions import Conditions
from core.cost import random_conditions
from core.device_rate import DeviceRate
from core.estimate import BACKWARD_SHARE, Estimate, estimate_job
from core.files import write_json
from core.memory_use import peak_resident_bytes
from core.optimisation import build_optimiser, choose_precision, update_average
from core.phase_times import phase_seconds
from core.spec import DistillationSpec, choose_student
from core.teacher_folder import TeacherInfo
from core.teacher_refs import resolve_teacher
from core.training_memory import unets_memory
from core.unet_layout import UNetLayout, unet_layout

LEAST_TIMED_RUNS = 3


@dataclass(frozen=True)
class Probe:
    """One measurement: two U-Nets, the batch they get, and where they run.

    Attributes
    ----------
    teacher, student
        Configs of the U-Nets.
    prompt_tokens
        Length of the text condition.
    batch_size
        Samples of one pass.
    spec
        Whose optimiser is used.
    device, precision
        Where, and in what.
    seconds
        How long to time each kind of pass.
    """

    teacher: Mapping[str, Any]
    student: Mapping[str, Any]
    prompt_tokens: int
    batch_size: int
    spec: DistillationSpec
    device: torch.device
    precision: torch.dtype
    seconds: float = 5.0

    @property
    def key(self) -> str:
        """Changes with everything that the speed follows from."""
        identity = {
            "teacher": dict(self.teacher),
            "student": dict(self.student),
            "prompt_tokens": self.prompt_tokens,
            "batch_size": self.batch_size,
            "device": device_name(self.device),
            "threads": torch.get_num_threads(),
            "precision": str(self.precision),
            "torch": torch.__version__,
        }
        return hashlib.sha256(json.dumps(identity, sort_keys=True, default=str).encode()).hexdigest()[:32]

    def measure(self) -> DeviceRate:
        """Time forward passes of the teacher, and training steps of the student."""
        teacher, student = (self._layout(config) for config in (self.teacher, self.student))
        # Both models are there at once, as in a training.
        predict, train = self._forward_pass(), self._training_step()
        forward_flops = self.batch_size * 2 * teacher.multiply_accumulates / self._time(predict)
        step = self.batch_size * 2 * student.multiply_accumulates * (1 + BACKWARD_SHARE)
        training_flops = step / self._time(train)
        return DeviceRate(
            device=device_name(self.device),
            precision=self._precision_name,
            forward_flops=forward_flops,
            training_flops=training_flops,
            process_bytes=self._process_bytes(teacher, student),
        )

    @property
    def _precision_name(self) -> Literal["float32", "bfloat16"]:
        return "bfloat16" if self.precision == torch.bfloat16 else "float32"

    def _layout(self, config: Mapping[str, Any]) -> UNetLayout:
        return unet_layout(config, prompt_tokens=self.prompt_tokens)

    def _process_bytes(self, teacher: UNetLayout, student: UNetLayout) -> int:
        if self.device.type != "cpu":
            return 0
        counted = unets_memory(
            teacher,
            student,
            samples=self.batch_size,
            precision=self._precision_name,
            accumulates=False,
        )
        return max(0, peak_resident_bytes() - counted)

    def _forward_pass(self) -> Callable[[], None]:
        unet = self._build(self.teacher).eval().requires_grad_(False)
        inputs = self._inputs(self.teacher)

        def run() -> None:
            with torch.no_grad():
                self._predict(unet, *inputs)

        return run

    def _training_step(self) -> Callable[[], None]:
        unet = self._build(self.student).train()
        average = self._build(self.student).eval().requires_grad_(False)
        optimiser = build_optimiser(unet.parameters(), self.spec.training)
        inputs = self._inputs(self.student)

        def run() -> None:
            self._predict(unet, *inputs).float().square().mean().backward()
            torch.nn.utils.clip_grad_norm_(unet.parameters(), self.spec.training.gradient_clip)
            optimiser.step()
            optimiser.zero_grad()
            update_average(average, unet, self.spec.training.ema_decay, step=1)

        return run

    def _build(self, config: Mapping[str, Any]) -> UNet2DConditionModel:
        with torch.device(self.device):
            return UNet2DConditionModel.from_config(config)

    def _inputs(self, config: Mapping[str, Any]) -> tuple[torch.Tensor, torch.Tensor, Conditions]:
        size = config["sample_size"]
        noisy_BCHW = torch.randn(self.batch_size, config["in_channels"], size, size, device=self.device)
        timestep_B = torch.randint(1000, (self.batch_size,), device=self.device)
        return (
            noisy_BCHW,
            timestep_B,
            random_conditions(config, self.prompt_tokens, self.batch_size, self.device),
        )

    def _predict(
        self,
        unet: UNet2DConditionModel,
        noisy_BCHW: torch.Tensor,
        timestep_B: torch.Tensor,
        conditions: Conditions,
    ) -> torch.Tensor:
        with torch.autocast(self.device.type, self.precision, enabled=self.precision != torch.float32):
            return conditions.predict(unet, noisy_BCHW, timestep_B)

    def _time(self, run: Callable[[], None]) -> float:
        """Return the mean seconds of a run, after one that does not count."""
        run()
        self._wait()
        started, runs = time.perf_counter(), 0
        while runs < LEAST_TIMED_RUNS or time.perf_counter() - started < self.seconds:
            run()
            self._wait()
            runs += 1
        return (time.perf_counter() - started) / runs

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def job_probe(teacher: TeacherInfo, spec: DistillationSpec, device: torch.device) -> Probe:
    """Return the probe of a job's models, at the batch that they are trained with."""
    return Probe(
        teacher=teacher.unet_config,
        student=choose_student(teacher.unet_config, spec.student, teacher.prompt_tokens).config,
        prompt_tokens=teacher.prompt_tokens,
        batch_size=spec.training.micro_batch_size or spec.training.batch_size,
        spec=spec,
        device=device,
        precision=choose_precision(spec.training, device),
    )


def cached_rate(probe: Probe, cache: Path) -> DeviceRate:
    """Return what a probe measured here before, or measure now and keep it."""
    path = cache / "rates" / f"{probe.key}.json"
    if not path.exists():
        write_json(path, probe.measure().model_dump())
    return DeviceRate.model_validate_json(path.read_bytes())


def device_name(device: torch.device) -> str:
    """Return the name of an accelerator, or of the processor with its number of cores."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()}, {os.cpu_count()} cores"


def compare(estimate: Estimate, workdir: Path) -> dict[str, Any]:
    """Return what a run of the job measured, and how far the estimate was off: 0.1 is a tenth too much."""
    lines = (workdir / "events.jsonl").read_text(encoding="utf-8").splitlines()
    events = [json.loads(line) for line in lines]
    seconds = phase_seconds(events)
    errors = {
        phase: estimated / seconds[phase] - 1
        for phase, estimated in (estimate.seconds or {}).items()
        if seconds.get(phase)
    }
    memory = max((_memory(event["values"]) for event in events if event["type"] == "metrics"), default=0.0)
    if memory:
        errors["memory"] = estimate.training_memory_bytes / memory - 1
    return {"measured_seconds": seconds, "measured_memory_bytes": memory, "error": errors}


def _memory(values: Mapping[str, Any]) -> float:
    return values.get("accelerator_memory_bytes") or values.get("process_memory_bytes") or 0.0


def main() -> None:
    """Print what a job will take on this machine, as JSON."""
    parser = argparse.ArgumentParser(prog="python -m core.probe", description=main.__doc__)
    parser.add_argument("--spec", type=Path, required=True, help="the job's specification, JSON")
    parser.add_argument("--teachers", type=Path, action="append", default=[], help="a folder of teachers")
    parser.add_argument("--cache", type=Path, default=Path("cache"), help="folder of rates measured before")
    parser.add_argument("--workdir", type=Path, help="folder of a run of this job, to compare with")
    options = parser.parse_args()
    spec = DistillationSpec.model_validate_json(options.spec.read_bytes())
    teacher = resolve_teacher(spec.teacher, options.teachers)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    rate = cached_rate(job_probe(teacher, spec, device), options.cache)
    estimate = estimate_job(teacher, spec, rate)
    report = estimate.model_dump()
    if options.workdir:
        report |= compare(estimate, options.workdir)
    sys.stdout.write(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
