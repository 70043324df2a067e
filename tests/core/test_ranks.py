"""A job on two processes and two hosts: what one makes of the same batches, and one end for all."""

import json
import os
import signal
import socket
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file
from torch.nn.parallel import DistributedDataParallel

from core.batches import BatchSource
from core.checkpoints import newest_checkpoint
from core.elastic import main as launch_ranks
from core.errors import CoreError
from core.exit_status import FAILED, STOPPED
from core.noise_matching import NoiseMatching
from core.noise_process import noise_process
from core.ranks import Ranks
from core.run import main
from core.spec import DistillationSpec, FeatureMatchingSpec, MethodSpec, derive_student
from core.student_weights import build_student
from core.students import student_rule
from core.taps import tap_pair
from core.teacher import Teacher

ROOT = Path(__file__).parents[2]
PATIENCE_SECONDS = 280
MODEL = "checkpoints/step-00000004/model.safetensors"
STUDENT = "student/unet/diffusion_pytorch_model.safetensors"
EVALUATION = {"samples": 2, "steps": 1, "guidance_scale": 1.0, "batch_size": 4, "bootstrap_resamples": 0}
TRAINING = {"steps": 4, "batch_size": 4, "learning_rate": 1e-4, "checkpoint_every": 2, "log_every": 1}
EVERY_PASS = {  # two parts over narrower features, each of two passes on a rank, so that all gradients add up
    "student": "c-tiny",
    "method": {"noise_matching_steps": 2, "features": {"cross_attention": True, "direction_weight": 0.5}},
    "evaluation": EVALUATION | {"score_every": 4, "score_samples": 2},
}


def arguments(spec: DistillationSpec, workdir: Path, teachers: Path) -> list[str]:
    workdir.mkdir(parents=True, exist_ok=True)
    (workdir / "spec.json").write_text(spec.model_dump_json())
    return ["--spec", str(workdir / "spec.json"), "--workdir", str(workdir), "--teachers", str(teachers)]


class Agents:
    """The agents of one launch, and how they end; their output is in the job's folder.

    Parameters
    ----------
    workdir
        The job's folder, whose command is ``program``.
    options
        Those of each agent.
    """

    def __init__(self, workdir: Path, program: Sequence[str], options: Sequence[Sequence[str]]) -> None:
        self._log = workdir / "log"
        with self._log.open("ab") as log:
            self.processes = [
                subprocess.Popen(
                    [sys.executable, "-m", "core.elastic", *each, "-m", *program],
                    cwd=ROOT,
                    stdout=log,
                    stderr=log,
                )
                for each in options
            ]

    @property
    def run(self) -> bool:
        """Whether all run; one that has ended fails the test that waits for something."""
        ended = [process.returncode for process in self.processes if process.poll() is not None]
        assert not ended, f"ended with {ended} before"
        return True

    def ranks(self) -> dict[int, int]:
        """The process of each rank that the agents have running."""
        found = {}
        for agent in self.processes:
            for child in Path(f"/proc/{agent.pid}/task/{agent.pid}/children").read_text().split():
                try:
                    environment = Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
                except OSError:
                    continue
                ranks = [int(entry[5:]) for entry in environment if entry.startswith(b"RANK=")]
                found |= dict.fromkeys(ranks, int(child))
        return found

    def finish(self) -> list[int]:
        """Wait for the end of each and return their exit statuses."""
        return [process.wait(PATIENCE_SECONDS) for process in self.processes]

    def kill(self) -> None:
        for process in self.processes:
            process.kill()  # and with it its ranks
            process.wait()
        sys.stderr.write(self._log.read_text())


@pytest.fixture
def launch(teachers_dir: Path) -> Iterator[Callable[..., Agents]]:
    """Starts a job on two ranks of one host, or of as many hosts as there are addresses."""
    launched: list[Agents] = []

    def launch(
        spec: DistillationSpec,
        workdir: Path,
        *,
        program: Sequence[str] = ("core.run",),
        addresses: Sequence[str] = (),
        restarts: int = 1,
    ) -> Agents:
        shared = ["--max-restarts", str(restarts)]
        if not addresses:
            options = [["--standalone", "--nproc-per-node", "2", *shared]]
        else:
            with socket.socket() as probe:
                probe.bind((addresses[0], 0))
                endpoint = f"{addresses[0]}:{probe.getsockname()[1]}"
            shared += ["--nnodes", str(len(addresses)), "--nproc-per-node", "1", "--rdzv-backend", "c10d"]
            shared += ["--rdzv-endpoint", endpoint, "--rdzv-id", uuid.uuid4().hex]
            options = [[*shared, "--local-addr", address] for address in addresses]
        launched.append(Agents(workdir, [*program, *arguments(spec, workdir, teachers_dir)], options))
        return launched[-1]

    yield launch
    for agents in launched:
        agents.kill()


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
    timing = {"samples_per_second", "process_memory_bytes"}
    return {
        event["step"]: {name: value for name, value in event["values"].items() if name not in timing}
        for event in told
    }


def greatest_difference(one: Path, other: Path) -> float:
    ours, theirs = load_file(one), load_file(other)
    assert set(ours) == set(theirs)
    return max((ours[name] - theirs[name]).abs().max().item() for name in ours)


def test_two_hosts_that_lose_their_ranks_by_turns_do_what_one_process_does(
    make_spec: Callable[..., DistillationSpec],
    teachers_dir: Path,
    tmp_path: Path,
    launch: Callable[..., Agents],
    eventually: Callable[..., Any],
) -> None:
    """The second dies in training, the first while it exports and the second has nothing left to do but wait.

    Gradients are added up in another order, so equal to rounding: 1e-5 of a loss, where 1e-6 is measured.

    Adam divides a gradient by its own size, so where one is nearly nought rounding may turn a step around:
    no weight differs by more than the rate times twice the steps, and all together by 1/200 of the way that
    they went, where 1/2000 is measured.
    """
    alone, together = tmp_path / "alone", tmp_path / "together"
    agents = launch(
        make_spec(**EVERY_PASS, training=TRAINING | {"micro_batch_size": 1}),
        together,
        program=("tests.core.faulty_rank", "dies_exporting"),
        addresses=("127.0.0.1", "127.0.0.2"),
        restarts=2,
    )
    eventually(lambda: agents.run and 3 in metrics_of(together))
    os.kill(agents.ranks()[1], signal.SIGKILL)
    assert run_alone(make_spec(**EVERY_PASS, training=TRAINING), alone, teachers_dir) == 0
    assert agents.finish() == [0, 0]
    events = events_of(together)
    assert [event["phase"] for event in events if event["type"] == "phase"].count("training") == 3
    assert [event["type"] for event in events].count("result") == 1
    assert not any(event["type"] == "failed" for event in events)
    repeated = [event for event in events if event["type"] == "metrics" and event["step"] == 3]
    assert len(repeated) == 2
    assert repeated[0]["values"]["loss"] == repeated[1]["values"]["loss"]
    expected, found = metrics_of(alone), metrics_of(together)
    assert set(found) == set(expected) == set(range(1, 5))
    for step, values in expected.items():
        assert found[step] == pytest.approx(values, rel=1e-5), f"step {step}"
    scored = [event["step"] for event in events if "frechet_distance_drawn" in event.get("values", {})]
    assert scored == [4], "by the first rank alone"
    rate, steps = TRAINING["learning_rate"], TRAINING["steps"]
    assert greatest_difference(together / MODEL, alone / MODEL) <= 2 * rate * steps
    ours, theirs = load_file(together / STUDENT), load_file(alone / STUDENT)
    distance = sum((ours[name] - theirs[name]).square().sum() for name in ours).sqrt()
    moved = load_file(alone / "checkpoints/step-00000002/average.safetensors")
    assert distance < 0.005 * sum((theirs[name] - moved[name]).square().sum() for name in ours).sqrt()


def test_a_stop_is_after_the_same_step_on_every_rank(
    make_spec: Callable[..., DistillationSpec],
    tmp_path: Path,
    launch: Callable[..., Agents],
    eventually: Callable[..., Any],
) -> None:
    """A thousand steps lie ahead: whoever ends in time was stopped. A step is one pass, a static graph."""
    spec = make_spec(training=TRAINING | {"steps": 1_000, "sample_every": 1_000}, evaluation=EVALUATION)
    agents = launch(spec, tmp_path)
    eventually(lambda: agents.run and 2 in metrics_of(tmp_path))
    agents.processes[0].terminate()
    assert agents.finish() == [STOPPED]
    saved = events_of(tmp_path)[-1]
    assert saved["type"] == "checkpoint"
    assert max(metrics_of(tmp_path)) == saved["step"]
    assert left_by_ranks(tmp_path) == 2 * [{"status": STOPPED, "failure": None}]


@pytest.mark.parametrize(
    ("fault", "restarts", "sentence"),
    [("out_of_memory", 1, "the memory is used up"), ("diverged", 0, "no longer a finite number at step 3")],
)
def test_what_fails_one_rank_fails_all_with_its_one_reason(
    make_spec: Callable[..., DistillationSpec],
    tmp_path: Path,
    launch: Callable[..., Agents],
    fault: str,
    restarts: int,
    sentence: str,
) -> None:
    """That the ranks may be started again changes nothing: it would end as before."""
    spec = make_spec(training=TRAINING, evaluation=EVALUATION)
    agents = launch(spec, tmp_path, program=("tests.core.faulty_rank", fault), restarts=restarts)
    assert agents.finish() == [FAILED]
    *earlier, last = events_of(tmp_path)
    assert (last["type"], last["reason"]) == ("failed", fault)
    assert sentence in last["message"]
    assert [event["phase"] for event in earlier if event["type"] == "phase"].count("training") == 1
    assert not any(event["type"] in {"failed", "result"} for event in earlier)
    assert [event["step"] for event in earlier if event["type"] == "checkpoint"] == [2]
    assert newest_checkpoint(tmp_path / "checkpoints").name == "step-00000002"
    went_back = [event["message"] for event in earlier if event["type"] == "warning"]
    assert len(went_back) == (fault == "diverged")
    failures = [each["failure"] for each in left_by_ranks(tmp_path) if each["failure"]]
    assert {failure["reason"] for failure in failures} == {fault}


def test_a_failure_of_no_reason_but_with_words_is_told_and_no_crash(
    make_spec: Callable[..., DistillationSpec], tmp_path: Path, launch: Callable[..., Agents]
) -> None:
    """A batch that two ranks cannot share is nobody's death: starting again would change nothing."""
    agents = launch(make_spec(training=TRAINING | {"batch_size": 1}, evaluation=EVALUATION), tmp_path)
    assert agents.finish() == [FAILED]
    (failed,) = events_of(tmp_path)
    assert (failed["type"], failed["reason"]) == ("failed", "internal_error")
    assert "a batch of 1 sample" in failed["message"]
    assert failed["hint"]


def test_a_launch_on_one_host_without_an_id_is_not_taken_for_the_one_before(tmp_path: Path) -> None:
    """The job may be another by now: word that ranks of the first launch left says nothing of the second."""
    program = ("tests.core.failing_rank", "--workdir", str(tmp_path))
    for launches in (1, 2):
        agents = Agents(tmp_path, program, [["--nproc-per-node", "1"]])
        try:
            assert agents.finish() == [FAILED]
        finally:
            agents.kill()
        assert [event["type"] for event in events_of(tmp_path)] == launches * ["failed"]


def test_a_launch_on_several_hosts_is_refused_without_an_id(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        launch_ranks(["--nnodes", "2", "-m", "core.run", "--workdir", str(tmp_path)])
    assert "--rdzv-id" in capsys.readouterr().err.splitlines()[-1]
    assert not list(tmp_path.iterdir())


def test_ranks_agree_however_long_the_first_one_evaluates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the only member of a group: what counts is the time that gloo was given."""
    alone = {"init_method": f"file://{tmp_path}/store", "rank": 0, "world_size": 1}
    monkeypatch.setattr(dist, "init_process_group", partial(dist.init_process_group, **alone))
    ranks = Ranks.join({"WORLD_SIZE": "2"})
    try:
        assert ranks.group is not None
        options = ranks.group._get_backend(torch.device("cpu")).options
        splits, models, numbers_of_steps, seconds_per_picture = 3, 2, 17, 10
        evaluation = 100_000 * splits * models * numbers_of_steps * seconds_per_picture
        assert options._timeout.total_seconds() > evaluation
    finally:
        ranks.leave()


def test_a_process_among_others_is_refused_without_an_agent_of_ours(
    make_spec: Callable[..., DistillationSpec],
    teachers_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Each of plain torchrun's processes would take the job for its own and write over the others' files."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(SystemExit):
        run_alone(make_spec(), tmp_path, teachers_dir)
    assert "core.elastic" in capsys.readouterr().err
    assert [file.name for file in tmp_path.iterdir()] == ["spec.json"]


def left_by_ranks(workdir: Path) -> list[dict[str, Any]]:
    return [json.loads(file.read_text()) for file in (workdir / "ranks").glob("*/rank-*.json")]


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
