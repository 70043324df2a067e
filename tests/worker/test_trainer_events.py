"""Reading the trainer's event file while it is being written."""

import json
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine

from store.database import server_now
from store.jobs import Claim
from worker.attempt import Rhythm
from worker.event_recorder import EventRecorder
from worker.trainer_events import (
    CheckpointEvent,
    EventTail,
    MetricsEvent,
    PhaseEvent,
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


def test_of_a_phase_s_progress_the_last_is_reported_and_other_events_at_once(events_file: Path) -> None:
    claim = Claim(job_id="j", tenant_id="t", attempt=1, lease_token=1, spec={}, scratch_attempt=0)
    recorder = EventRecorder(
        engine=create_engine("postgresql+psycopg://"),
        claim=claim,
        tail=EventTail(events_file),
        clock=server_now,
    )

    def say(**event: Any) -> None:
        append(events_file, line(**event))
        for said in recorder.read():
            recorder.keep(said)

    say(type="progress", phase="latents", done=6, total=6, unit="pictures")
    for step in (1, 2):
        say(type="progress", phase="training", done=step, total=6, unit="steps")
        say(type="metrics", step=step, values={"loss": 0.5})
    assert recorder.has_unrecorded
    assert not recorder.is_urgent
    say(type="phase", phase="evaluation")
    assert recorder.is_urgent
    offered = recorder.offer()
    assert offered is not None
    told = [(event.type, event.data.get("phase"), event.data.get("done")) for event in offered.events]
    assert told == [
        ("progress", "latents", 6),
        ("metrics", None, None),
        ("progress", "training", 2),
        ("metrics", None, None),
        ("phase", "evaluation", None),
    ]
    say(type="metrics", step=3, values={"loss": 0.5})
    assert recorder.offer() == offered, "in doubt: offered again as it was"
    recorder.settle()
    assert not recorder.is_urgent
    later = recorder.offer()
    assert later is not None
    assert later.position > offered.position
    recorder.settle()
    assert recorder.offer() is None


def test_the_longer_a_job_runs_the_longer_its_progress_may_wait() -> None:
    rhythm = Rhythm()
    assert [rhythm.patience(ran) for ran in (0, 30, 60, 300)] == [1, 1, 2, 10]
