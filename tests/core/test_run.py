"""A whole job: its artefacts, killed, stopped and resumed; its failures; its student in plain diffusers."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load_file

from core.artist import Artist
from core.exit_status import CRASHED
from core.optimisation import emulates_bfloat16
from core.run import main
from core.spec import DistillationSpec, EvaluationSpec
from core.teacher import Teacher, load_teacher
from core.teacher_folder import read_teacher

ROOT = Path(__file__).parents[2]
PATIENCE_SECONDS = 120
STUDENT_WEIGHTS = "student/unet/diffusion_pytorch_model.safetensors"


def start(spec: DistillationSpec, workdir: Path, teachers: Path) -> subprocess.Popen[str]:
    workdir.mkdir(parents=True, exist_ok=True)
    (workdir / "spec.json").write_text(spec.model_dump_json())
    command = [sys.executable, "-m", "core.run", "--spec", str(workdir / "spec.json")]
    command += ["--workdir", str(workdir), "--teachers", str(teachers)]
    return subprocess.Popen(command, cwd=ROOT, text=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def finish(process: subprocess.Popen[str]) -> int:
    _, log = process.communicate(timeout=PATIENCE_SECONDS)
    sys.stderr.write(log)
    return process.returncode


def run_here(spec: DistillationSpec, workdir: Path, teachers: Path, *options: str) -> int:
    """Run a job in this process, which spares the seconds that a new one imports for."""
    workdir.mkdir(parents=True, exist_ok=True)
    (workdir / "spec.json").write_text(spec.model_dump_json())
    handler = signal.getsignal(signal.SIGTERM)
    try:
        return main(
            [
                *("--spec", str(workdir / "spec.json"), "--workdir", str(workdir)),
                *("--teachers", str(teachers)),
                *options,
            ]
        )
    finally:
        signal.signal(signal.SIGTERM, handler)


def events_of(workdir: Path) -> list[dict[str, Any]]:
    path = workdir / "events.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def wait_for_event(process: subprocess.Popen[str], workdir: Path, **wanted: Any) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not any(wanted.items() <= event.items() for event in events_of(workdir)):
        assert process.poll() is None, f"ended with {process.returncode} before {wanted}"
        assert time.monotonic() < deadline, f"no event {wanted}"
        time.sleep(0.01)  # the file is polled, with a deadline


@pytest.fixture(scope="module")
def finished(
    tmp_path_factory: pytest.TempPathFactory,
    teachers_dir: Path,
    make_spec: Callable[..., DistillationSpec],
) -> Path:
    """The folder of a job that ran in a process of its own, without interruption."""
    workdir = tmp_path_factory.mktemp("finished")
    assert finish(start(make_spec(), workdir, teachers_dir)) == 0
    return workdir


def test_a_job_reports_its_stages_and_leaves_its_artefacts(finished: Path) -> None:
    events = events_of(finished)
    assert [event["phase"] for event in events if event["type"] == "phase"] == [
        "captions",
        "latents",
        "training",
        "evaluation",
        "export",
    ]
    metrics = [event for event in events if event["type"] == "metrics"]
    assert [event["step"] for event in metrics] == [2, 4, 6]
    assert set(metrics[0]["values"]) == {
        "loss",
        "loss_output",
        "loss_feature",
        "gradient_norm",
        "learning_rate",
        "samples_per_second",
        "process_memory_bytes",
    }
    for event in events:
        if event["type"] == "sample":
            assert (finished / event["path"]).is_file()
    checkpoints = [event["path"] for event in events if event["type"] == "checkpoint"]
    assert checkpoints == [f"checkpoints/step-{step:08d}" for step in (2, 4, 6)]
    assert events[-2]["type"] == "artifact"
    assert events[-1]["type"] == "result"
    assert events[-1]["values"] == json.loads((finished / "result.json").read_text())


def test_the_manifest_describes_every_file(finished: Path) -> None:
    student = finished / "student"
    manifest = json.loads((student / "manifest.json").read_text())
    described = {file["path"]: file for file in manifest["files"]}
    present = {file.relative_to(student).as_posix() for file in student.rglob("*") if file.is_file()}
    assert set(described) == present - {"manifest.json"}
    for path, file in described.items():
        content = (student / path).read_bytes()
        assert file["size"] == len(content)
        assert file["sha256"] == hashlib.sha256(content).hexdigest()
    assert manifest["spec"] == json.loads((finished / "spec.json").read_text())
    assert manifest["seed"] == 7
    assert manifest["captions"]["drawn"] == 6


def test_licence_card_and_grid_travel_with_the_student(finished: Path, teachers_dir: Path) -> None:
    student = finished / "student"
    licence = teachers_dir / "weights" / "LICENSE.txt"
    assert (student / "LICENSE.txt").read_bytes() == licence.read_bytes()
    card = (student / "README.md").read_text()
    assert card.startswith("---\n")
    front_matter = ModelCard(card).data
    assert (front_matter.library_name, front_matter.license) == ("diffusers", "apache-2.0")
    assert "| U-Net parameters |" in card
    assert "Fréchet distance, captions seen as text only" in card
    assert (student / "teacher-vs-student.png").is_file()
    assert not list(student.rglob("*.bin"))


DRAW_WITH_DIFFUSERS_ALONE = """
import sys
import torch
from diffusers import DiffusionPipeline, DPMSolverMultistepScheduler

assert not any(name.split(".")[0] in {"core", "store", "worker", "api"} for name in sys.modules)
pipeline = DiffusionPipeline.from_pretrained(sys.argv[1])
pipeline.scheduler = DPMSolverMultistepScheduler.from_config(pipeline.scheduler.config)
pictures = pipeline(
    ["small cat", "large star"],
    num_inference_steps=5,
    guidance_scale=3.0,
    generator=[torch.Generator().manual_seed(seed) for seed in (1, 2)],
    output_type="np",
).images
pictures.tofile(sys.argv[2])
"""


def test_plain_diffusers_draws_the_pictures_of_the_trainer(
    finished: Path, teacher: Teacher, tmp_path: Path
) -> None:
    """The tolerance is one of 255 levels: floating-point sums in another order can round another way."""
    student = load_teacher(read_teacher(finished / "student"), torch.device("cpu"))
    artist = Artist(teacher, student.unet, EvaluationSpec(steps=5, guidance_scale=3))
    ours = artist.draw(["small cat", "large star"], [1, 2])
    command = [sys.executable, "-I", "-c", DRAW_WITH_DIFFUSERS_ALONE, str(finished / "student")]
    subprocess.run([*command, str(tmp_path / "pictures")], check=True, cwd=tmp_path, capture_output=True)
    theirs = np.fromfile(tmp_path / "pictures", np.float32).reshape(2, 32, 32, 3)
    difference = ours.permute(0, 2, 3, 1).numpy() / 255 - theirs
    assert np.abs(difference).max() < 1.01 / 255


def test_the_exported_weights_are_the_averaged_ones(finished: Path) -> None:
    exported = load_file(finished / STUDENT_WEIGHTS)
    average = load_file(finished / "checkpoints" / "step-00000006" / "average.safetensors")
    assert set(exported) == set(average)
    assert all(torch.equal(exported[name], average[name]) for name in average)


@pytest.mark.parametrize("preset", ["b-tiny", "c-tiny"])
def test_other_students_go_the_whole_way(
    preset: str, make_spec: Callable[..., DistillationSpec], teachers_dir: Path, tmp_path: Path
) -> None:
    training = {"steps": 2, "batch_size": 2, "precision": "bfloat16" if preset == "c-tiny" else None}
    assert run_here(make_spec(student=preset, training=training), tmp_path, teachers_dir) == 0
    student = load_teacher(read_teacher(tmp_path / "student"), torch.device("cpu"))
    assert len(student.unet.down_blocks) == (3 if preset == "b-tiny" else 4)
    assert not any("projectors" in name for name in load_file(tmp_path / STUDENT_WEIGHTS))
    warnings = [event["message"] for event in events_of(tmp_path) if event["type"] == "warning"]
    slow = training["precision"] == "bfloat16" and emulates_bfloat16(torch.device("cpu"))
    assert any("bfloat16" in message for message in warnings) == slow


@pytest.mark.parametrize(
    "wanted",
    [{"phase": "latents"}, {"type": "checkpoint", "step": 4}, {"phase": "export"}],
    ids=["while drawing", "while training", "while exporting"],
)
def test_a_killed_job_ends_with_the_weights_of_one_that_was_not(
    wanted: dict[str, Any],
    finished: Path,
    make_spec: Callable[..., DistillationSpec],
    teachers_dir: Path,
    tmp_path: Path,
) -> None:
    process = start(make_spec(), tmp_path, teachers_dir)
    wait_for_event(process, tmp_path, **wanted)
    process.kill()
    assert finish(process) == -signal.SIGKILL
    with (tmp_path / "events.jsonl").open("a") as events:
        events.write('{"at": "torn')
    assert run_here(make_spec(), tmp_path, teachers_dir) == 0
    for name in (STUDENT_WEIGHTS, "checkpoints/step-00000006/model.safetensors"):
        assert (tmp_path / name).read_bytes() == (finished / name).read_bytes()
    assert events_of(tmp_path)[-1]["type"] == "result"


def few_step_spec(make_spec: Callable[..., DistillationSpec]) -> DistillationSpec:
    """Two steps of training, then two of folding and two of halving, with a score after every two."""
    scored = {"score_every": 2, "score_samples": 3, "samples": 4, "steps": 2, "guidance_scale": 2.0}
    return make_spec(
        evaluation=scored | {"batch_size": 4, "bootstrap_resamples": 10},
        student="c-tiny",
        training={"steps": 2, "batch_size": 2, "checkpoint_every": 1},
        few_step={"steps": 2, "start_steps": 4, "guidance_scale": 2, "training_steps": 2},
    )


@pytest.fixture(scope="module")
def transferred(
    tmp_path_factory: pytest.TempPathFactory,
    teachers_dir: Path,
    make_spec: Callable[..., DistillationSpec],
) -> Path:
    """The folder of a job with a few-step transfer that ran without interruption."""
    workdir = tmp_path_factory.mktemp("transferred")
    assert run_here(few_step_spec(make_spec), workdir, teachers_dir) == 0
    return workdir


def test_a_transferred_student_is_evaluated_and_shipped_as_it_draws(transferred: Path) -> None:
    events = events_of(transferred)
    phases = [event["phase"] for event in events if event["type"] == "phase"]
    assert phases == ["captions", "latents", "training", "few_step", "evaluation", "export"]
    checkpoints = [event["step"] for event in events if event["type"] == "checkpoint"]
    assert checkpoints == [1, 2, 3, 4, 5, 6]
    scheduler = json.loads((transferred / "student" / "scheduler" / "scheduler_config.json").read_text())
    assert scheduler["_class_name"] == "DDIMScheduler"
    assert scheduler["timestep_spacing"] == "trailing"
    assert (scheduler["_num_inference_steps"], scheduler["_guidance_scale"]) == (2, 1.0)
    result = json.loads((transferred / "result.json").read_text())
    told = [event for event in events if event["type"] == "metrics" and "loss" not in event["values"]]
    assert result["training"]["scores"] == {
        "pictures": 3,
        "points": [{"step": event["step"], **event["values"]} for event in told],
    }
    assert [event["step"] for event in told] == [2, 4, 6]
    assert result["few_step"] == {"steps": 2, "rounds": [None, 2], "training_steps": 4}
    assert result["drawn"]["unet_calls"] == {"teacher": 4, "student": 2}, "guidance doubles the teacher's"
    card = (transferred / "student" / "README.md").read_text()
    assert "num_inference_steps=2, guidance_scale=1)" in card
    assert "few-step transfer (guidance folded in, to 2 steps): 2 steps a round, learning rate 1e-05" in card


@pytest.mark.parametrize("step", [3, 5], ids=["while folding", "while halving"])
def test_a_killed_transfer_ends_with_the_weights_of_one_that_was_not(
    step: int,
    transferred: Path,
    make_spec: Callable[..., DistillationSpec],
    teachers_dir: Path,
    tmp_path: Path,
) -> None:
    process = start(few_step_spec(make_spec), tmp_path, teachers_dir)
    wait_for_event(process, tmp_path, type="checkpoint", step=step)
    process.kill()
    assert finish(process) == -signal.SIGKILL
    assert run_here(few_step_spec(make_spec), tmp_path, teachers_dir) == 0
    for name in (STUDENT_WEIGHTS, "checkpoints/step-00000006/model.safetensors"):
        assert (tmp_path / name).read_bytes() == (transferred / name).read_bytes()
    ours, theirs = (json.loads((folder / "result.json").read_text()) for folder in (tmp_path, transferred))
    assert ours["training"]["scores"] == theirs["training"]["scores"]


def test_every_term_of_the_loss_goes_the_whole_way(
    make_spec: Callable[..., DistillationSpec], teachers_dir: Path, tmp_path: Path
) -> None:
    method = {
        "noise_matching_steps": 2,
        "task_weight": 1,
        "features": {"cross_attention": True, "direction_weight": 1},
    }
    spec = make_spec(student="c-tiny", method=method, training={"steps": 2, "batch_size": 2, "log_every": 1})
    assert run_here(spec, tmp_path, teachers_dir) == 0
    metrics = [event["values"] for event in events_of(tmp_path) if event["type"] == "metrics"]
    assert len(metrics) == 2
    terms = {"loss", "loss_output", "loss_feature", "loss_direction", "loss_task", "gradient_norm"}
    assert set(metrics[0]) == terms | {"learning_rate", "samples_per_second", "process_memory_bytes"}
    assert not any("projectors" in name for name in load_file(tmp_path / STUDENT_WEIGHTS))


def test_a_terminated_job_leaves_a_checkpoint_and_goes_on(
    make_spec: Callable[..., DistillationSpec], teachers_dir: Path, tmp_path: Path
) -> None:
    training = {"steps": 25, "batch_size": 2, "checkpoint_every": 1_000, "sample_every": 1_000}
    process = start(make_spec(training=training), tmp_path, teachers_dir)
    wait_for_event(process, tmp_path, type="progress", phase="training")
    process.terminate()
    assert finish(process) == os.EX_TEMPFAIL
    last = events_of(tmp_path)[-1]
    assert last["type"] == "checkpoint"
    assert (tmp_path / last["path"] / "manifest.json").is_file()

    written = len(events_of(tmp_path))
    assert run_here(make_spec(training=training), tmp_path, teachers_dir) == 0
    steps = [event["done"] for event in events_of(tmp_path)[written:] if event.get("unit") == "steps"]
    assert steps[0] == last["step"] + 1
    assert steps[-1] == 25


@pytest.mark.parametrize(
    ("changes", "reason", "message"),
    [
        ({"teacher": "nobody"}, "bad_teacher", "nobody"),
        ({"student": {"width": 0.33}}, "bad_teacher", "0.2 and 0.4"),
        ({"captions": {"kind": "file", "path": "/absent"}}, "bad_captions", "absent"),
        (
            {"training": {"steps": 50, "batch_size": 2, "learning_rate": 1, "log_every": 4}},
            "diverged",
            "finite",
        ),
    ],
    ids=["teacher", "student", "captions", "diverged"],
)
def test_a_failure_names_its_reason(
    changes: dict[str, Any],
    reason: str,
    message: str,
    make_spec: Callable[..., DistillationSpec],
    teachers_dir: Path,
    tmp_path: Path,
) -> None:
    assert run_here(make_spec(**changes), tmp_path, teachers_dir) == 1
    failure = events_of(tmp_path)[-1]
    assert failure["type"] == "failed"
    assert failure["reason"] == reason
    assert message in failure["message"]
    assert failure["hint"]


def test_an_error_that_nobody_foresaw_is_a_crash_which_says_what_it_was(
    make_spec: Callable[..., DistillationSpec],
    teachers_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It may be the accelerator's fault, so the job is not told to be one that cannot succeed."""

    def fail(*_: object) -> None:
        raise RuntimeError("CUDA error: unspecified launch failure")

    monkeypatch.setattr("core.run.run_job", fail)
    assert run_here(make_spec(), tmp_path, teachers_dir) == CRASHED
    [failure] = events_of(tmp_path)
    assert (failure["type"], failure["reason"]) == ("failed", "internal_error")
    assert failure["message"] == "RuntimeError: CUDA error: unspecified launch failure"


def test_a_job_that_is_to_run_on_an_accelerator_never_falls_back_to_the_processor(
    make_spec: Callable[..., DistillationSpec],
    teachers_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert run_here(make_spec(), tmp_path, teachers_dir, "--device", "cuda") == CRASHED
    [failure] = events_of(tmp_path)
    assert "accelerator is gone" in failure["message"]


def test_a_job_that_diverges_goes_back_once_and_then_leaves_the_curve(
    make_spec: Callable[..., DistillationSpec], teachers_dir: Path, tmp_path: Path
) -> None:
    training = {"steps": 50, "batch_size": 2, "learning_rate": 1, "log_every": 4}
    assert run_here(make_spec(training=training), tmp_path, teachers_dir) == 1
    told = [event for event in events_of(tmp_path) if event["type"] in {"warning", "failed"}]
    assert [event["type"] for event in told] == ["warning", "failed"]
    assert "with 0.5 times the learning rate" in told[0]["message"]
    assert "training.learning_rate" in told[1]["hint"]
    curve = json.loads((tmp_path / "divergence.json").read_text())
    assert curve["abandoned"][-1]["loss"] is None
    assert curve["reports"][-1]["loss"] is None


def test_a_teacher_kept_in_half_precision_gets_a_student_in_half_precision(
    make_spec: Callable[..., DistillationSpec], teachers_dir: Path, tmp_path: Path
) -> None:
    teachers = tmp_path / "teachers"
    shutil.copytree(teachers_dir, teachers)
    load_teacher(read_teacher(teachers / "weights"), torch.device("cpu")).unet.half().save_pretrained(
        teachers / "weights" / "unet"
    )
    spec = make_spec(training={"steps": 1, "batch_size": 2})
    assert run_here(spec, tmp_path / "job", teachers) == 0
    weights = load_file(tmp_path / "job" / STUDENT_WEIGHTS)
    assert {tensor.dtype for tensor in weights.values()} == {torch.float16}
    average = load_file(tmp_path / "job" / "checkpoints" / "step-00000001" / "average.safetensors")
    assert average["conv_in.weight"].dtype == torch.float32


def test_the_experiment_on_unseen_concepts_is_one_specification(
    make_spec: Callable[..., DistillationSpec], teachers_dir: Path, tmp_path: Path
) -> None:
    rows = [f"{size} {name}" for size in ("small", "large") for name in ("cat", "dog", "fish", "car")]
    (tmp_path / "captions.csv").write_text("\n".join(["id,caption", *(f"1,{row}" for row in rows), "2,", ""]))
    spec = make_spec(
        captions={"kind": "file", "path": str(tmp_path / "captions.csv")},
        drawn={"fraction": 0.5, "hold_out": ["cat", "large dog"]},
        training={"steps": 1, "batch_size": 2},
        evaluation={
            "samples": 2,
            "steps": 2,
            "more_steps": [1],
            "guidance_scale": 2,
            "bootstrap_resamples": 5,
        },
    )
    assert run_here(spec, tmp_path / "job", teachers_dir) == 0
    result = json.loads((tmp_path / "job" / "result.json").read_text())
    counts = {split: result["captions"][split] for split in ("drawn", "text_only", "held_out")}
    assert counts == {"drawn": 2, "text_only": 3, "held_out": 3}
    assert result["captions"]["report"] == {"read": 9, "kept": 8, "dropped": {"empty": 1}}
    assert "frechet_distance" in result["held_out"]["by_steps"]["1"]["student"]
    card = (tmp_path / "job" / "student" / "README.md").read_text()
    assert "Fréchet distance, captions held out of the drawing" in card
