"""Events are whole lines, also after a crash, and progress is not reported too often."""

import json
from contextlib import closing
from pathlib import Path

import pytest

from core.caption_readers import read_file
from core.errors import BadCaptionsError
from core.events import EventWriter, Progress
from core.spec import FileCaptions


def read(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_torn_last_line_is_cut_off_when_the_file_is_opened_again(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_text('{"type": "phase"}\n{"type": "prog')
    with closing(EventWriter(path)) as writer:
        writer.warning("again")
    assert [event["type"] for event in read(path)] == ["phase", "warning"]


def test_text_that_is_no_utf_8_is_escaped(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    captions = tmp_path / "captions.jsonl"
    captions.write_text('{"text": "a cat"}\n{"\\ud800": "a dog"}')
    with pytest.raises(BadCaptionsError) as raised:
        list(read_file(FileCaptions(path=str(captions))))
    with closing(EventWriter(path)) as writer:
        writer.warning(f"a mouse 🐭: {raised.value.message}")
    (event,) = read(path)
    assert event["message"] == "a mouse 🐭: captions.jsonl, line 2: no 'text', only \ud800"


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
