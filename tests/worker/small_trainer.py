"""A trainer without a model: counts steps, and does with files and signals what `core.run` does.

``small_trainer.py BEHAVIOUR SPEC WORKDIR``. Its checkpoint and its student hold the list of the steps made,
each with the process that made it, so that a test can tell what was resumed and what repeated. With
``pauses`` it waits at steps 3 and 5 of its first attempt, until SIGUSR1 sends it on or SIGTERM ends it.
"""

import hashlib
import json
import os
import signal
import sys
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import time_machine

BEHAVIOUR, WORK_DIR = sys.argv[1], Path(sys.argv[3])
SPEC = json.loads(Path(sys.argv[2]).read_text())
LAST_STEP = 6
BALLAST_BYTES = 1 << 18  # so that a checkpoint can be torn in the middle of its upload
asked_to_stop, go_on = threading.Event(), threading.Event()


def tell(kind: str, **data: object) -> None:
    line = json.dumps({"at": datetime.now(UTC).isoformat(), "type": kind, **data}) + "\n"
    with (WORK_DIR / "events.jsonl").open("a") as file:
        file.write(line)


def write_checkpoint(steps: list[list[int]]) -> None:
    step = len(steps)
    name = f"checkpoints/step-{step:08d}"
    folder = WORK_DIR / name
    partial = folder.with_suffix(".partial")
    partial.mkdir(parents=True)
    content = json.dumps(steps)
    (partial / "state.json").write_text(content)
    (partial / "optimiser.bin").write_bytes(bytes(BALLAST_BYTES))
    (partial / "manifest.json").write_text(json.dumps(hashlib.sha256(content.encode()).hexdigest()))
    partial.rename(folder)
    tell("checkpoint", step=step, path=name)


def read_checkpoint() -> list[list[int]]:
    folders = sorted((WORK_DIR / "checkpoints").glob("step-????????"))
    return json.loads((folders[-1] / "state.json").read_text()) if folders else []


def export(steps: list[list[int]]) -> None:
    tell("phase", phase="export")
    student = WORK_DIR / "student"
    (student / "unet").mkdir(parents=True)
    (student / "unet" / "steps.json").write_text(json.dumps(steps))
    if BEHAVIOUR == "big-student":
        (student / "unet" / "weights.bin").write_bytes(bytes(3 * BALLAST_BYTES))
    (student / "manifest.json").write_text(
        json.dumps({"teacher": SPEC["teacher"], "files": [{"path": "unet/steps.json"}]})
    )
    (WORK_DIR / "result.json").write_text(json.dumps({"steps": len(steps)}))
    tell("artifact", path="student")
    tell("result", values={"steps": len(steps)})


def train(steps: list[list[int]]) -> None:
    resumed = bool(steps)
    tell("phase", phase="training")
    while len(steps) < LAST_STEP:
        steps.append([len(steps) + 1, os.getpid()])
        step = len(steps)
        if BEHAVIOUR == "slow":
            asked_to_stop.wait(float(os.environ["SMALL_TRAINER_STEP_SECONDS"]))
        tell("metrics", step=step, values={"loss": 1 / step, "gradient_norm": float("nan")})
        tell("progress", phase="training", done=step, total=LAST_STEP, unit="steps", eta_seconds=1.0)
        if step % 2 == 0:
            write_checkpoint(steps)
        if step == 3:
            (WORK_DIR / "samples").mkdir(exist_ok=True)
            (WORK_DIR / "samples" / "step-00000003.png").write_bytes(b"picture")
            tell("sample", step=3, path="samples/step-00000003.png", prompts=["a cat"])
        if step in {3, 5} and BEHAVIOUR == "pauses" and not resumed:
            go_on.clear()
            tell("warning", message=f"pauses at step {step}")
            if not asked_to_stop.is_set():
                go_on.wait(60)
        heed_requests(steps)
        if asked_to_stop.is_set():
            write_checkpoint(steps)
            sys.exit(os.EX_TEMPFAIL)


def heed_requests(steps: list[list[int]]) -> None:
    for request in ("checkpoint", "sample"):
        file = WORK_DIR / "requests" / request
        if not file.exists():
            continue
        file.unlink()
        if request == "checkpoint":
            write_checkpoint(steps)
        else:
            (WORK_DIR / "samples" / "asked.png").write_bytes(b"another picture")
            tell("sample", step=len(steps), path="samples/asked.png", prompts=["a dog"])


def main() -> None:
    if offset_hours := os.environ.get("CLOCK_OFFSET_HOURS"):
        time_machine.travel(timedelta(hours=float(offset_hours))).start()
    if BEHAVIOUR == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        tell("phase", phase="training")
        threading.Event().wait(60)
    signal.signal(signal.SIGTERM, lambda *_: (asked_to_stop.set(), go_on.set()))
    signal.signal(signal.SIGUSR1, lambda *_: go_on.set())
    sys.stdout.write("hello from the trainer\n")
    sys.stdout.flush()
    if BEHAVIOUR == "fail":
        (WORK_DIR / "divergence.json").write_text("{}")
        tell("failed", reason="diverged", message="the loss exploded\x00", hint="lower the rate")
        sys.exit(1)
    if BEHAVIOUR == "small-memory" and SPEC["training"]["micro_batch_size"] is None:
        tell("failed", reason="out_of_memory", message="the memory is used up")
        sys.exit(1)
    if BEHAVIOUR == "crash":
        sys.exit(3)
    if BEHAVIOUR == "unforeseen":
        tell("failed", reason="internal_error", message="RuntimeError: unspecified launch failure", hint="")
        sys.exit(os.EX_SOFTWARE)
    if BEHAVIOUR == "no-student":
        sys.exit(0)
    steps = read_checkpoint()
    train(steps)
    export(steps)


if __name__ == "__main__":
    main()
