"""The trainer's process and its command."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from store.settings import Settings
from worker.archive import files_of, write_archive
from worker.trainer import Trainer, core_command, describe_exit


def test_the_command_names_every_folder_of_teachers(tmp_path: Path) -> None:
    settings = Settings(
        database_url="postgresql://h/d",
        redis_url="redis://h",
        data_dir=tmp_path,
        teachers_dirs=[tmp_path / "a", tmp_path / "b"],
    )
    command = list(core_command(settings)(tmp_path / "spec.json", tmp_path / "work"))
    assert command[:3] == [sys.executable, "-m", "core.run"]
    teachers = [command[i + 1] for i, word in enumerate(command) if word == "--teachers"]
    assert teachers[:2] == [str(tmp_path / "a"), str(tmp_path / "b")]
    assert command[command.index("--cache") + 1] == str(tmp_path / "cache")
    assert command[command.index("--device") + 1] == "auto"
    on_accelerator = list(
        core_command(settings, needs_accelerator=True)(tmp_path / "spec.json", tmp_path / "work")
    )
    assert on_accelerator[on_accelerator.index("--device") + 1] == "cuda"


def test_a_job_has_as_many_processes_as_the_worker_accelerators_and_its_batch_samples(tmp_path: Path) -> None:
    spec = tmp_path / "spec.json"
    settings = Settings(database_url="postgresql://h/d", redis_url="redis://h", worker_processes=4)
    for batch_size, processes in ((256, 4), (3, 3), (1, 1)):
        spec.write_text(json.dumps({"training": {"batch_size": batch_size}}))
        command = list(core_command(settings)(spec, tmp_path))
        assert ("core.elastic" in command) == (processes > 1)
        if processes > 1:
            assert command[command.index("--nproc-per-node") + 1] == str(processes)
        assert command[command.index("core.run") + 1 :][:2] == ["--spec", str(spec)]


def test_a_trainer_does_not_take_the_place_of_its_worker_among_others_for_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pod of many exports them, or whatever launched the worker; core.run refuses to be one of those."""
    places = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK")
    for name in (*places, "CUDA_VISIBLE_DEVICES"):
        monkeypatch.setenv(name, "2")
    log = tmp_path / "log"
    script = "import json, os; print(json.dumps(dict(os.environ)))"
    trainer = Trainer([sys.executable, "-c", script], log, {"LOG_FORMAT": "json"})
    assert trainer.wait(60) == 0
    environment = json.loads(log.read_text())
    assert not set(places).intersection(environment)
    assert (environment["CUDA_VISIBLE_DEVICES"], environment["LOG_FORMAT"]) == ("2", "json")


def test_killing_a_trainer_kills_its_children_too(tmp_path: Path, eventually: Callable[..., Any]) -> None:
    script = (
        "import subprocess, sys; p = subprocess.Popen(['sleep', '60']); print(p.pid, flush=True); p.wait()"
    )
    log = tmp_path / "log"
    trainer = Trainer([sys.executable, "-c", script], log)
    child = eventually(lambda: log.read_text().strip())
    assert os.getpgid(int(child)) == trainer.pid != os.getpgid(0)
    assert trainer.wait(0) is None
    trainer.kill()
    assert trainer.wait(0) == -signal.SIGKILL
    stat = Path(f"/proc/{child}/stat")
    eventually(lambda: not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z")


def test_a_program_whose_parent_died_before_it_began_does_not_begin() -> None:
    command = [sys.executable, "-m", "worker.launch", "1", sys.executable, "-c", "print('begun')"]
    ended = subprocess.run(command, capture_output=True, check=False)
    assert (ended.returncode, ended.stdout) == (os.EX_TEMPFAIL, b"")


@pytest.mark.parametrize(
    ("code", "words"), [(0, "student"), (7, "exit code 7"), (-9, "out of memory"), (-11, "SIGSEGV")]
)
def test_the_way_a_trainer_ended_is_told(code: int, words: str) -> None:
    assert words in describe_exit(code)


def test_equal_students_make_equal_archives(tmp_path: Path) -> None:
    archives = []
    for name in ("a", "b"):
        folder = tmp_path / name
        (folder / "unet").mkdir(parents=True)
        (folder / "manifest.json").write_text("{}")
        (folder / "unet" / "weights").write_bytes(b"w" * 3_000_000)
        os.utime(folder / "manifest.json", (0, 10**9 if name == "a" else 1.5 * 10**9))
        assert files_of(folder)[-1].name == "manifest.json"
        write_archive(folder, tmp_path / f"{name}.zip")
        archives.append((tmp_path / f"{name}.zip").read_bytes())
    assert archives[0] == archives[1]
