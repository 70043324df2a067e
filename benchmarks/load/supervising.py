"""What supervising costs: one specification trained alone and by a worker, in turns.

``python -m benchmarks.load.supervising SPEC RESULT`` is the supervised half, in a process of its own, so that
the kernel tells apart what the supervisor used and what its trainer used.
"""

import json
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.load.service import REPOSITORY
from core.spec import DistillationSpec
from store.database import create_engine, server_now, transaction
from store.job_queries import get_job
from store.jobs import create_job
from store.objects import ObjectStore
from store.settings import Settings, get_settings
from worker.supervisor import Supervisor
from worker.trainer import core_command

TRAINING = {"batch_size": 8, "log_every": 10, "checkpoint_every": 100, "sample_every": 1_000_000}
SPEC = {
    "teacher": "emoji-64",
    "student": "b-tiny",
    "drawn": {"count": 16},
    "latents": {"steps": 5},
    "evaluation": {"samples": 2, "steps": 1, "bootstrap_resamples": 0},
    "export": {"variants": [], "single_file": False},
}


def compare(environment: Mapping[str, str], folder: Path, *, steps: int, pairs: int) -> dict[str, Any]:
    """Train in turns without and with the service.

    Returns
    -------
    dict
        Wall time of every run, the ratio of the sums, and the supervisor's share of the processor time.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _alone(environment, _spec(folder / "few-steps.json", 5), folder / "warm-up")  # fills the cache of latents
    spec = _spec(folder / "spec.json", steps)
    alone, supervised = [], []
    for pair in range(pairs):
        alone.append(_alone(environment, spec, folder / f"alone-{pair}"))
        supervised.append(_supervised(environment, spec, folder / f"supervised-{pair}.json"))
    seconds = [sum(run["seconds"] for run in runs) for runs in (alone, supervised)]
    return {
        "steps": steps,
        "alone": alone,
        "supervised": supervised,
        "wall_ratio": seconds[1] / seconds[0],
        "processor_share": sum(run["supervisor_cpu_seconds"] for run in supervised)
        / sum(run["trainer_cpu_seconds"] for run in supervised),
    }


def _spec(path: Path, steps: int) -> Path:
    training = {**TRAINING, "steps": steps}
    path.write_text(DistillationSpec.model_validate(SPEC | {"training": training}).model_dump_json())
    return path


def _alone(environment: Mapping[str, str], spec: Path, work_dir: Path) -> dict[str, float]:
    settings = Settings.model_validate({name.lower(): value for name, value in environment.items()})
    work_dir.mkdir()
    began = time.perf_counter()
    with (work_dir / "trainer.log").open("wb") as log:
        command = core_command(settings)(spec, work_dir)
        subprocess.run(command, cwd=REPOSITORY, env=environment, stdout=log, stderr=log, check=True)
    return {"seconds": time.perf_counter() - began}


def _supervised(environment: Mapping[str, str], spec: Path, result: Path) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.load.supervising", str(spec), str(result)]
    subprocess.run(command, cwd=REPOSITORY, env=environment, check=True, capture_output=True)
    measured: dict[str, float] = json.loads(result.read_text())
    return measured


def main(spec: Path, result: Path) -> None:
    """Work on one job as a worker does, and write down what that took."""
    settings = get_settings()
    engine = create_engine(settings)
    supervisor = Supervisor(engine=engine, objects=ObjectStore(settings), settings=settings, worker="load")
    with transaction(engine) as session:
        parsed = DistillationSpec.model_validate_json(spec.read_bytes())
        job = create_job(session, spec=parsed, queue=settings.worker_queue, now=server_now(session))
    before = resource.getrusage(resource.RUSAGE_SELF)
    outcome = supervisor.run(threading.Event())
    after = resource.getrusage(resource.RUSAGE_SELF)
    if outcome != "succeeded":
        raise SystemExit(f"the job ended as {outcome}")
    with transaction(engine) as session:
        ended = get_job(session, job.id)
    assert ended.started_at is not None
    assert ended.finished_at is not None
    trainer = resource.getrusage(resource.RUSAGE_CHILDREN)
    measured = {
        "seconds": (ended.finished_at - ended.started_at).total_seconds(),
        "supervisor_cpu_seconds": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        "trainer_cpu_seconds": trainer.ru_utime + trainer.ru_stime,
    }
    result.write_text(json.dumps(measured))
    engine.dispose()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
