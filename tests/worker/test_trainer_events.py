"""Reading the trainer's event file while it is being written."""

import json
from pathlib import Path

import pytest

from worker.progress_filter import ProgressFilter
from worker.trainer_events import (
    CheckpointEvent,
    EventTail,
    MetricsEvent,
    PhaseEvent,
    ProgressEvent,
    WarningEvent,
)


def line(**data: object) -> bytes:
    return json.dumps(data).encode() + b"\n"


@pytest.fixture
def events_file(tmp_path: Path) -> Path:
    return tmp_path / "events.jsonl"


def append(path: Path, content: bytes) -> None:
    with path.open("ab") as file:
        file.write(content)


def test_every_line_is_read_once_and_a_torn_one_when_it_is_whole(events_file: Path) -> None:
    tail = EventTail(events_file)
    assert tail.read() == []
    whole, torn = line(type="phase", phase="captions"), line(type="phase", phase="latents")
    append(events_file, whole + torn[:10])
    assert tail.read() == [PhaseEvent(type="phase", phase="captions")]
    assert tail.position == len(whole)
    assert tail.read() == []
    append(events_file, torn[10:])
    assert tail.read() == [PhaseEvent(type="phase", phase="latents")]
    assert tail.position == events_file.stat().st_size


@pytest.mark.parametrize(
    "bad",
    [
        b"\n",
        b"not json\n",
        b"[1]\n",
        b"\xff\xfe\n",
        line(type="news", text="from a later release"),
        line(type="phase", phase="lunch"),
        line(type="metrics", step=1),
        line(type="checkpoint", step=1, path="../outside"),
        line(type="checkpoint", step=1, path="/etc/passwd"),
    ],
)
def test_a_line_that_cannot_be_used_is_passed_over(events_file: Path, bad: bytes) -> None:
    append(events_file, bad + line(type="checkpoint", step=1, path="checkpoints/a"))
    assert EventTail(events_file).read() == [CheckpointEvent(type="checkpoint", step=1, path="checkpoints/a")]


def test_what_postgres_cannot_hold_is_replaced(events_file: Path) -> None:
    append(events_file, b'{"type": "metrics", "step": 1, "values": {"a": NaN, "b": Infinity, "c": 2}}\n')
    append(events_file, b'{"type": "warning", "message": "a\\u0000b\\ud800c"}\n')
    assert EventTail(events_file).read() == [
        MetricsEvent(type="metrics", step=1, values={"a": None, "b": None, "c": 2}),
        WarningEvent(type="warning", message="a\ufffdb?c"),
    ]


def test_progress_is_recorded_when_it_matters() -> None:
    clock = iter([0.0, 0.1, 0.2, 11.0, 11.1])
    noteworthy = ProgressFilter(few_step=False, monotonic=lambda: next(clock))

    def progress(done: int) -> ProgressEvent:
        return ProgressEvent(type="progress", phase="training", done=done, total=100_000, unit="steps")

    passed = [noteworthy.lets_through(progress(done)) for done in (0, 1, 1_000, 1_001, 100_000)]
    assert passed == [True, False, True, True, True]
