"""What a measured job took: samples a second, share of the device's peak, memory."""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from rich.table import Table

from core.phase_times import phase_seconds
from core.spec import DistillationSpec, choose_student
from core.step_cost import training_sample_cost
from core.teacher_folder import TeacherInfo
from core.unet_layout import unet_layout

# Dense bfloat16 operations per second by the makers' data sheets.
PEAK_FLOPS = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "4090": 165e12}
PASSES_OF_A_TRAINED_MODEL = 3  # one forward, and gradients of inputs and of weights


def figures_of(
    spec: DistillationSpec,
    teacher: TeacherInfo,
    events: Sequence[Mapping[str, Any]],
    *,
    device: str,
    peak_bytes: int,
) -> dict[str, Any]:
    """Return a job's figures by what it reported; the first report, of the warm-up, does not count."""
    metrics = [event["values"] for event in events if event["type"] == "metrics"]
    reports = [values["samples_per_second"] for values in metrics if "samples_per_second" in values]
    samples_per_second = fmean(reports[1:])
    flops = sample_flops(spec, teacher)
    peak_flops = next((peak for name, peak in PEAK_FLOPS.items() if name in device), None)
    drawn = next(event["drawn"] for event in events if event["type"] == "captions")
    drew = any(event["type"] == "progress" and event["phase"] == "latents" for event in events)
    return {
        "student": spec.student,
        "device": device,
        "samples_per_second": samples_per_second,
        "gflop_per_sample": flops / 1e9,
        "model_flops_utilisation": peak_flops and samples_per_second * flops / peak_flops,
        "peak_memory_bytes": peak_bytes,
        "pictures": drawn if drew else 0,
        "latents_seconds": phase_seconds(events)["latents"],
    }


def sample_flops(spec: DistillationSpec, teacher: TeacherInfo) -> float:
    """Return the floating-point operations that one sample of a job's training takes."""
    choice = choose_student(teacher.unet_config, spec.student, teacher.prompt_tokens)
    theirs, ours = (
        2.0 * unet_layout(config, prompt_tokens=teacher.prompt_tokens).multiply_accumulates
        for config in (teacher.unet_config, choice.config)
    )
    cost = training_sample_cost(spec.method)
    return cost.teacher * theirs + cost.student * PASSES_OF_A_TRAINED_MODEL * ours


def table(results: Sequence[Mapping[str, Any]]) -> Table:
    """Return the figures of all students for people."""
    shown = Table("student", "samples/s", "GFLOP a sample", "MFU", "peak memory", "latents")
    for result in results:
        utilisation = result["model_flops_utilisation"]
        shown.add_row(
            result["student"],
            f"{result['samples_per_second']:,.1f}",
            f"{result['gflop_per_sample']:,.0f}",
            "unknown peak" if utilisation is None else f"{utilisation:.0%}",
            f"{result['peak_memory_bytes'] / 2**30:,.1f} GiB",
            f"{result['pictures']} in {result['latents_seconds']:.0f} s" if result["pictures"] else "cached",
        )
    return shown
