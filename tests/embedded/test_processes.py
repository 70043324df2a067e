"""Processes are given the time that they need to end, and no more."""

import sys
from pathlib import Path

import psutil
import pytest

from embedded import processes
from embedded.processes import Command, ProcessRecord
from embedded.services import worker_grace
from store.settings import Settings
from tests.deploy.repository import compose, interpolate

# Ends when it is told to, but not before what it waits for is there; notes how it ended.
SLOW = """
import pathlib, signal, sys
folder = pathlib.Path(sys.argv[1])
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
(folder / "ready").touch()
signal.sigwait([signal.SIGTERM])
while not (folder / "uploaded").exists():
    signal.sigtimedwait([signal.SIGUSR1], 0.01)
(folder / "ended").touch()
"""


def start(folder: Path, grace_seconds: float) -> ProcessRecord:
    arguments = [sys.executable, "-c", SLOW, str(folder)]
    command = Command("slow", arguments, folder, folder / "log", {}, grace_seconds=grace_seconds)
    record = processes.spawn(command, mark=str(folder))
    processes.await_ready(record, command, (folder / "ready").exists, timeout_seconds=60)
    return record


def test_a_process_that_is_slow_to_end_is_waited_for_and_spoken_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("embedded.processes.REPORT_SECONDS", 0.05)
    told: list[str] = []

    def report(line: str) -> None:
        told.append(line)
        if len(told) == 3:
            (tmp_path / "uploaded").touch()

    record = start(tmp_path, grace_seconds=300)
    processes.end(record, report)
    assert (tmp_path / "ended").exists()
    assert not psutil.pid_exists(record.pid)
    assert told[0] == "slow: still stopping after 0 s of 300 s at most; Ctrl-C kills it"


def test_a_long_log_makes_room_and_is_kept_until_the_next_is_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("embedded.processes.LOG_BYTES", 12)
    folder = tmp_path / "logs"
    for line in ("first", "second", "third", "fourth", "fifth"):
        arguments = [sys.executable, "-c", f"print({line!r})"]
        processes.run(Command("short", arguments, tmp_path, folder / "short.log", {}), mark=str(tmp_path))
    kept = {path.name: path.read_text() for path in folder.iterdir()}
    assert kept == {"short.previous.log": "third\nfourth\n", "short.log": "fifth\n"}


def test_a_process_that_outlives_its_grace_is_killed(tmp_path: Path) -> None:
    record = start(tmp_path, grace_seconds=0.1)
    processes.end(record)
    assert not psutil.pid_exists(record.pid)
    assert not (tmp_path / "ended").exists()


def test_a_worker_has_time_for_its_trainers_checkpoint_and_the_upload() -> None:
    trainer = Settings.model_fields["cancel_grace_seconds"].default
    assert interpolate(compose()["services"]["worker"]["stop_grace_period"], {}) == "5m"
    assert worker_grace({}) == trainer + 180 == 300
    assert worker_grace({"CANCEL_GRACE_SECONDS": "600"}) == 780
