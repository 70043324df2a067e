"""A job on two processes: what one process makes of the same batches, also after a death or a stop."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file
from torch.nn.parallel import DistributedDataParallel

from core.batches import BatchSource
from core.errors import CoreError
from core.noise_matching import NoiseMatching
from core.noise_process import noise_process
from core.ranks import Ranks
from core.run import STOPPED, main
from core.spec import DistillationSpec, FeatureMatchingSpec, MethodSpec, derive_student
from core.student_weights import build_student
from core.students import student_rule
from core.taps import tap_pair
from core.teacher import Teacher

ROOT = Path(__file__).parents[2]
PATIENCE_SECONDS = 280
MODEL = "checkpoints/step-00000006/model.safetensors"
STUDENT = "student/unet/diffusion_pytorch_model.safetensors"
EVALUATION = {"samples": 2, "steps": 1, "guidance_scale": 1.0, "batch_size": 4, "bootstrap_resamples": 0}
TRAINING = {"steps": 6, "batch_size": 6, "learning_rate": 1e-4, "checkpoint_every": 2, "log_every": 1}
EVERY_PASS = {  # two parts of two passes each, over narrower features, so that all gradients add up
    "student": "c-tiny",
    "method": {"noise_matching_steps": 2, "features": {"cross_attention": True, "direction_weight": 0.5}},
    "training": TRAINING | {"micro_batch_size": 2},
    "evaluation": EVALUATION | {"score_every": 4, "score_samples": 2},
}


def arguments(spec: DistillationSpec, workdir: Path, teachers: Path) -> list[str]:
    workdir.mkdir(parents=True, exist_ok=True)
    (workdir / "spec.json").write_text(spec.model_dump_json())
    return ["--spec", str(workdir / "spec.json"), "--workdir", str(workdir), "--teachers", str(teachers)]


def start(spec: DistillationSpec, workdir: Path, teachers: Path) -> subprocess.Popen[bytes]:
    """Start a job on two ranks, whose output is in its folder."""
    command = [sys.executable, "-m", "core.elastic", "--standalone", "--nproc-per-node", "2"]
    command += ["--max-restarts", "1", "-m", "core.run", *arguments(spec, workdir, teachers)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with (workdir / "log").open("ab") as log:
        return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)


def finish(process: subprocess.Popen[bytes], workdir: Path) -> int:
    try:
        return process.wait(PATIENCE_SECONDS)
    finally:
        process.kill()  # and with it its ranks
        process.wait()
        sys.stderr.write((workdir / "log").read_text())


def run_alone(spec: DistillationSpec, workdir: Path, teachers: Path) -> int:
    handler = signal.getsignal(signal.SIGTERM)
    try:
        return main(arguments(spec, workdir, teachers))
    finally:
        signal.signal(signal.SIGTERM, handler)


def events_of(workdir: Path) -> list[dict[str, Any]]:
    path = workdir / "events.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def metrics_of(workdir: Path) -> dict[int, dict[str, float]]:
    told = [event for event in events_of(workdir) if "loss" in event.get("values", {})]
    timing = {"samples_per_second"}
    return {
        event["step"]: {name: value for name, value in event["values"].items() if name not in timing}
        for event in told
    }


def await_true(condition: Callable[[], Any], process: subprocess.Popen[bytes]) -> Any:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (found := condition()):
        assert process.poll() is None, f"ended with {process.returncode} before"
        assert time.monotonic() < deadline
        time.sleep(0.01)  # a file or a process is polled, with a deadline
    return found


def rank_processes(agent: int) -> dict[int, int]:
    """The process of each rank that an agent has running."""
    found = {}
    for child in Path(f"/proc/{agent}/task/{agent}/children").read_text().split():
        try:
            environment = Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
        except OSError:
            continue
        ranks = [int(entry[5:]) for entry in environment if entry.startswith(b"RANK=")]
        found |= dict.fromkeys(ranks, int(child))
    return found


def greatest_difference(one: Path, other: Path) -> float:
    ours, theirs = load_file(one), load_file(other)
    assert set(ours) == set(theirs)
    return max((ours[name] - theirs[name]).abs().max().item() for name in ours)


def test_two_ranks_of_which_one_is_killed_train_what_one_process_does(
    make_spec: Callable[..., DistillationSpec], teachers_dir: Path, tmp_path: Path
) -> None:
    """Gradients are added up in another order, so equal to rounding: 1e-5 of a loss, where 1e-6 is measured.

    Adam divides a gradient by its own size, so where one is nearly nought rounding may turn a step around:
    no weight differs by more than the rate times twice the steps, and all together by 1/200 of the way that
    they went, where 1/2000 is measured.
    """
    spec = make_spec(**EVERY_PASS)
    alone, together = tmp_path / "alone", tmp_path / "together"
    assert run_alone(spec, alone, teachers_dir) == 0

    process = start(spec, together, teachers_dir)
    try:
        await_true(lambda: 3 in metrics_of(together), process)
        killed = rank_processes(process.pid)[1]
        os.kill(killed, signal.SIGKILL)
    finally:
        status = finish(process, together)
    assert status == 0
    events = events_of(together)
    assert [event["phase"] for event in events if event["type"] == "phase"].count("training") == 2
    assert [event["type"] for event in events].count("result") == 1
    assert not any(event["type"] == "failed" for event in events)
    repeated = [event for event in events if event["type"] == "metrics" and event["step"] == 3]
    assert len(repeated) == 2
    assert repeated[0]["values"]["loss"] == repeated[1]["values"]["loss"]
    expected, found = metrics_of(alone), metrics_of(together)
    assert set(found) == set(expected) == set(range(1, 7))
    for step, values in expected.items():
        assert found[step] == pytest.approx(values, rel=1e-5), f"step {step}"
    scored = [event["step"] for event in events if "frechet_distance_drawn" in event.get("values", {})]
    assert scored == [4], "by the first rank alone"
    rate, steps = TRAINING["learning_rate"], TRAINING["steps"]
    assert greatest_difference(together / MODEL, alone / MODEL) <= 2 * rate * steps
    ours, theirs = load_file(together / STUDENT), load_file(alone / STUDENT)
    distance = sum((ours[name] - theirs[name]).square().sum() for name in ours).sqrt()
    moved = load_file(alone / "checkpoints/step-00000004/average.safetensors")
    assert distance < 0.005 * sum((theirs[name] - moved[name]).square().sum() for name in ours).sqrt()


def test_a_stop_is_after_the_same_step_on_every_rank(
    make_spec: Callable[..., DistillationSpec], teachers_dir: Path, tmp_path: Path
) -> None:
    """A thousand steps lie ahead: whoever ends in time was stopped. A step is one pass, a static graph."""
    spec = make_spec(training=TRAINING | {"steps": 1_000, "sample_every": 1_000}, evaluation=EVALUATION)
    process = start(spec, tmp_path, teachers_dir)
    try:
        await_true(lambda: 2 in metrics_of(tmp_path), process)
        process.terminate()
    finally:
        status = finish(process, tmp_path)
    assert status == STOPPED
    saved = events_of(tmp_path)[-1]
    assert saved["type"] == "checkpoint"
    assert max(metrics_of(tmp_path)) == saved["step"]
    left = [json.loads(file.read_text()) for file in (tmp_path / "ranks").glob("*/rank-*.json")]
    assert left == 2 * [{"status": STOPPED, "failure": None}]


@pytest.fixture
def replicated(tmp_path: Path) -> Iterator[Ranks]:
    """This process as the only member of a group, so that DDP does all that it does among others."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield Ranks(group=dist.group.WORLD)
    dist.destroy_process_group()


@pytest.mark.parametrize("student", ["b-tiny", "c-tiny"])
def test_every_tap_fires_and_carries_gradient_in_a_replica(
    replicated: Ranks, teacher: Teacher, batches: BatchSource, student: Any
) -> None:
    config = derive_student(teacher.info.unet_config, student)
    unet = build_student(config, student_rule(student), teacher.unet, seed=0)
    everywhere = FeatureMatchingSpec(cross_attention=True)
    tapped_teacher, tapped = tap_pair(teacher.unet, unet, everywhere, seed=0)
    names = set(tapped.state_dict())
    replica = replicated.replicate(tapped, is_static=True)
    assert isinstance(replica, DistributedDataParallel)
    assert set(tapped.state_dict()) == names
    process = noise_process(teacher.noise_schedule(), teacher.scheduler_config)
    batch = batches.batch(0, 2)
    for _ in range(2):  # the static graph is learnt from the first pass
        _, features = replica(batch.noisy(process), batch.timestep_B, batch.conditions)
        assert len(features) == len(tapped.projectors) > 8
        for place, feature in enumerate(features):
            (gradient,) = torch.autograd.grad(feature.square().mean(), unet.conv_in.weight, retain_graph=True)
            assert gradient.abs().sum() > 0, f"tap {place} carries no gradient"
        method = MethodSpec(features=everywhere)
        objective = NoiseMatching(tapped_teacher, process, method, stride=50, precision=torch.float32)
        (terms,) = objective(replica, batch)
        terms["loss"].backward()
        assert all(parameter.grad is not None for parameter in tapped.parameters())
    tapped_teacher.untap()


def test_shares_are_a_partition_and_of_the_very_batch(batches: BatchSource) -> None:
    whole = batches.batch(8, 5)
    parts = [batches.batch(8, 5, Ranks(rank, 3).share(5)) for rank in range(3)]
    assert sorted(map(len, parts)) == [1, 2, 2]
    for name in ("latents_BCHW", "noise_BCHW", "timestep_B", "matches_B"):
        joined = torch.cat([getattr(part, name) for part in parts])
        assert torch.equal(joined, getattr(whole, name)), name
    embeddings = torch.cat([part.conditions.embeddings_BLD for part in parts])
    torch.testing.assert_close(embeddings, whole.conditions.embeddings_BLD)
    with pytest.raises(CoreError, match="batch of 2 samples"):
        Ranks(0, 3).share(2)
