"""Events are whole lines, also after a crash, and progress is not reported too often."""

import json
from contextlib import closing
from pathlib import Path

from core.events import EventWriter, Progress


def read(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_torn_last_line_is_cut_off_when_the_file_is_opened_again(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_text('{"type": "phase"}\n{"type": "prog')
    with closing(EventWriter(path)) as writer:
        writer.warning("again")
    assert [event["type"] for event in read(path)] == ["phase", "warning"]


def test_a_file_of_one_torn_line_becomes_empty(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_text('{"type"')
    EventWriter(path).close()
    assert path.read_text() == ""


def test_progress_reports_its_first_and_its_last_and_little_between(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    with closing(EventWriter(path)) as writer:
        progress = Progress(writer, "training", "steps", total=10_000, done=10)
        for done in range(11, 10_001):
            progress.report(done)
    events = read(path)
    assert events[0]["done"] == 11
    assert events[-1] | {"at": ""} == {
        "at": "",
        "type": "progress",
        "phase": "training",
        "done": 10_000,
        "total": 10_000,
        "unit": "steps",
        "eta_seconds": 0.0,
    }
    assert len(events) < 20
