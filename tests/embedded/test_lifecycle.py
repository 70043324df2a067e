"""Starts and stops: none by halves, none on top of another, nothing left behind."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest

from embedded import processes
from embedded import stack as embedded
from embedded.errors import StackAlreadyRunningError, StackBusyError, StackStartError
from embedded.ports import PortBook, is_free
from embedded.state import recorded_stack, running_stack, transition

LeftOver = Callable[[Path], list[psutil.Process]]
ONLY_VALKEY = {"DATABASE_URL": "postgresql://elsewhere/db", "S3_ENDPOINT_URL": "https://s3.elsewhere"}
ONLY_POSTGRES = {"REDIS_URL": "redis://elsewhere", "S3_ENDPOINT_URL": "https://s3.elsewhere"}

STARTER = """
import sys
from pathlib import Path
from embedded.stack import running
with running(Path(sys.argv[1]), environ={"DATABASE_URL": "x", "S3_ENDPOINT_URL": "x"}, durable=False):
    print("ready", flush=True)
    sys.stdin.read()
"""


def start_in_another_process(folder: Path) -> "subprocess.Popen[str]":
    starter = subprocess.Popen(
        [sys.executable, "-c", STARTER, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert starter.stdout is not None
    assert starter.stdout.readline() == "ready\n"
    return starter


def end(starter: "subprocess.Popen[str]", number: signal.Signals) -> int:
    starter.send_signal(number)
    starter.communicate()
    return starter.returncode


def test_stop_leaves_no_process_and_no_record(data_dir: Path, left_over: LeftOver) -> None:
    stack = embedded.start(data_dir, environ={}, durable=False)
    assert {process.pid for process in left_over(data_dir)} >= {record.pid for record in stack.processes}
    assert embedded.stop(data_dir)
    assert left_over(data_dir) == []
    assert running_stack(data_dir) is None
    assert not embedded.stop(data_dir), "a second stop finds nothing"


def test_a_second_start_is_refused_and_disturbs_nothing(data_dir: Path) -> None:
    first = embedded.start(data_dir, environ=ONLY_VALKEY, durable=False)
    with pytest.raises(StackAlreadyRunningError, match="already running"):
        embedded.start(data_dir, environ=ONLY_VALKEY, durable=False)
    assert running_stack(data_dir) == first


def test_a_start_during_another_is_refused(data_dir: Path) -> None:
    data_dir.mkdir()
    with transition(data_dir, wait_seconds=0), pytest.raises(StackBusyError, match=str(os.getpid())):
        embedded.start(data_dir, environ=ONLY_VALKEY, durable=False)


def test_ctrl_c_stops_what_was_started(data_dir: Path, left_over: LeftOver) -> None:
    starter = start_in_another_process(data_dir)
    assert left_over(data_dir)
    assert end(starter, signal.SIGINT) != 0
    assert left_over(data_dir) == []


def test_the_leftovers_of_a_killed_owner_are_cleared_by_the_next_start(data_dir: Path) -> None:
    starter = start_in_another_process(data_dir)
    orphaned = recorded_stack(data_dir)
    assert orphaned is not None
    end(starter, signal.SIGKILL)
    assert orphaned.processes[0].find() is not None
    assert running_stack(data_dir) is None, "nobody is in charge of it any more"
    stack = embedded.start(data_dir, environ=ONLY_VALKEY, durable=False)
    assert orphaned.processes[0].find() is None
    assert stack.variables == orphaned.variables


def test_a_kill_of_everything_loses_nothing_that_was_committed(data_dir: Path, left_over: LeftOver) -> None:
    stack = embedded.start(data_dir, environ=ONLY_POSTGRES)
    with psycopg.connect(stack.variables["DATABASE_URL"]) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 1 AS number")
    processes.kill(left_over(data_dir))
    assert (data_dir / "stack.json").exists()
    stack = embedded.start(data_dir, environ=ONLY_POSTGRES)
    with psycopg.connect(stack.variables["DATABASE_URL"]) as connection:
        assert connection.execute("SELECT number FROM kept").fetchall() == [(1,)]


def test_a_record_whose_process_numbers_belong_to_others_is_not_believed(data_dir: Path) -> None:
    stack = embedded.start(data_dir, environ=ONLY_VALKEY, durable=False, detached=True)
    embedded.stop(data_dir)
    stranger = stack.processes[0].model_copy(update={"pid": os.getpid()})
    stack.model_copy(update={"processes": [stranger]}).save()
    assert running_stack(data_dir) is None
    embedded.start(data_dir, environ=ONLY_VALKEY, durable=False)


def test_a_moved_clock_does_not_make_a_living_process_look_dead(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack = embedded.start(data_dir, environ=ONLY_VALKEY, durable=False, detached=True)
    booted = psutil.boot_time()
    # From this time and a number of ticks psutil computes when a process was born.
    monkeypatch.setattr("psutil._psplatform.boot_time", lambda: booted + 170)
    assert running_stack(data_dir) == stack
    assert stack.dead_processes() == []


def test_a_torn_record_does_not_hide_its_processes(data_dir: Path, left_over: LeftOver) -> None:
    embedded.start(data_dir, environ=ONLY_VALKEY, durable=False, detached=True)
    before = {process.pid for process in left_over(data_dir)}
    (data_dir / "stack.json").write_text('{"data_dir": "/t')
    embedded.start(data_dir, environ=ONLY_VALKEY, durable=False)
    assert before.isdisjoint(process.pid for process in left_over(data_dir))


def test_a_stale_postgres_lock_file_of_another_process_is_no_obstacle(data_dir: Path) -> None:
    with embedded.running(data_dir, environ=ONLY_POSTGRES, durable=False):
        lock_file = (data_dir / "postgres" / "postmaster.pid").read_text()
    others = "\n".join([str(os.getpid()), *lock_file.split("\n")[1:]])
    (data_dir / "postgres" / "postmaster.pid").write_text(others)
    with embedded.running(data_dir, environ=ONLY_POSTGRES, durable=False):
        pass


def test_an_interrupted_first_start_of_postgres_is_made_good(data_dir: Path) -> None:
    (data_dir / "postgres.unfinished").mkdir(parents=True)
    (data_dir / "postgres.unfinished" / "PG_VERSION").write_text("18\n")
    with embedded.running(data_dir, environ=ONLY_POSTGRES, durable=False) as stack:
        psycopg.connect(stack.variables["DATABASE_URL"]).close()


def test_a_port_lost_before_the_start_is_replaced(data_dir: Path, monkeypatch: Any) -> None:
    with embedded.running(data_dir, environ=ONLY_VALKEY, durable=False) as first:
        taken = int(first.variables["REDIS_URL"].rsplit(":", 1)[1].split("/")[0])
        other = data_dir.with_name("other")
        other.mkdir()
        (other / "ports.json").write_text(f'{{"valkey": {taken}}}')
        monkeypatch.setattr("embedded.ports.is_free", lambda port: True if port == taken else is_free(port))
        with embedded.running(other, environ=ONLY_VALKEY, durable=False) as second:
            assert second.variables["REDIS_URL"] != first.variables["REDIS_URL"]


def test_a_failed_start_says_why_and_leaves_nothing(data_dir: Path, left_over: LeftOver) -> None:
    (data_dir / "valkey").mkdir(parents=True)
    (data_dir / "valkey" / "appendonlydir").write_text("a file where a folder should be")
    with pytest.raises(StackStartError, match="valkey"):
        embedded.start(data_dir, environ=ONLY_VALKEY)
    assert left_over(data_dir) == []


def test_ports_are_remembered_and_never_given_twice(tmp_path: Path) -> None:
    book = PortBook(tmp_path / "ports.json")
    chosen = book.take(["a", "b"], {"a": 10_000})
    assert len({*chosen.values(), chosen["a"] + 10_000}) == 3
    assert PortBook(tmp_path / "ports.json").take(["a", "b"], {"a": 10_000}) == chosen


def test_no_port_is_one_that_an_outgoing_connection_may_have(tmp_path: Path) -> None:
    path = tmp_path / "ports.json"
    path.write_text('{"remembered": 29000}')
    names = ["remembered", *(f"port {number}" for number in range(200))]
    chosen = PortBook(path).take(names, dict.fromkeys(names, 10_000)).values()
    first_outgoing = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert max(chosen) + 10_000 < first_outgoing
    assert min(chosen) >= 20_000
