import json
import sys
from pathlib import Path

import pytest

from benchmarks.real_scale.__main__ import main
from benchmarks.real_scale.figures import figures_of, sample_flops
from core.spec import DistillationSpec
from core.teacher_folder import TeacherInfo

SD14_UNET = json.loads((Path(__file__).parents[1] / "core" / "sd14_unet_config.json").read_text())


@pytest.fixture
def teacher(tmp_path: Path) -> TeacherInfo:
    return TeacherInfo(id="t", path=tmp_path, family="sd1", unet_config=SD14_UNET, parameters=859_520_964)


# FACTS: a sample of SD 1.4 to b-base costs 2,370 GFLOP, to c-micro 1,501.
@pytest.mark.parametrize(("student", "gflop"), [("b-base", 2_370), ("c-micro", 1_501)])
def test_a_sample_costs_what_was_counted_independently(
    teacher: TeacherInfo, student: str, gflop: float
) -> None:
    spec = DistillationSpec(teacher="t", student=student)
    assert sample_flops(spec, teacher) / 1e9 == pytest.approx(gflop, rel=0.01)


def test_figures_leave_out_the_warm_up(teacher: TeacherInfo) -> None:
    def event(kind: str, second: int, **data: object) -> dict:
        return {"type": kind, "at": f"2026-01-01T00:00:{second:02d}+00:00", **data}

    def report(rate: float) -> dict:
        return event("metrics", 30, step=1, values={"samples_per_second": rate})

    events = [
        event("phase", 0, phase="captions"),
        event("captions", 1, drawn=256),
        event("phase", 2, phase="latents"),
        event("progress", 3, phase="latents", done=16, total=256),
        event("phase", 22, phase="training"),
        *map(report, (1.0, 100.0, 140.0)),
    ]
    spec = DistillationSpec(teacher="t", student="b-base")
    figures = figures_of(spec, teacher, events, device="NVIDIA H100 80GB HBM3", peak_bytes=5)
    assert figures["samples_per_second"] == 120
    assert figures["latents_seconds"] == 20
    assert figures["model_flops_utilisation"] == pytest.approx(120 * 2_370e9 / 989e12, rel=0.01)


def test_a_whole_job_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = SD14_UNET | {
        "_diffusers_version": "0.42.0",  # pipelines take a small sample_size of an old one for a mistake
        "sample_size": 4,
        "block_out_channels": [8, 16, 16, 16],
        "norm_num_groups": 4,
        "attention_head_dim": 4,
        "cross_attention_dim": 64,
    }
    (tmp_path / "unet.json").write_text(json.dumps(small))
    command = ["benchmarks.real_scale", "--unet-config", str(tmp_path / "unet.json")]
    command += ["--students", "b-tiny", "--steps", "8", "--batch-size", "2", "--pictures", "2"]
    command += ["--work", str(tmp_path / "work"), "--json", str(tmp_path / "figures.json")]
    monkeypatch.setattr(sys, "argv", command)
    main()
    (figures,) = json.loads((tmp_path / "figures.json").read_text())
    assert figures["student"] == "b-tiny"
    assert figures["pictures"] == 2
    assert figures["samples_per_second"] > 0
    assert figures["peak_memory_bytes"] > 2**20
