"""Log lines: their shape, their ids, and what must never be in them."""

import io
import json
import logging
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from structlog.contextvars import bound_contextvars

from core.logs import configure_logging
from core.spec import DistillationSpec

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def configure() -> Iterator[Callable[..., io.StringIO]]:
    """Configures this process to log into a text, as if it had just started, and gives that text."""
    root = logging.getLogger()
    level, ours = root.level, []

    def make(**options: Any) -> io.StringIO:
        stream = io.StringIO()
        root.handlers.clear()
        configure_logging("api", stream=stream, **options)
        ours.extend(root.handlers)
        return stream

    yield make
    for handler in ours:
        root.removeHandler(handler)
    root.setLevel(level)
    logging.captureWarnings(False)


def test_a_line_has_the_ids_of_process_context_and_call(configure: Callable[..., io.StringIO]) -> None:
    stream = configure(fields={"attempt": 2})
    with bound_contextvars(request_id="r-1"):
        logging.getLogger("api.jobs").warning("took %d jobs", 3, extra={"job_id": "j-1"})
    entry = json.loads(stream.getvalue())
    assert entry.pop("at").endswith("Z")
    assert entry == {
        "process": "api",
        "attempt": 2,
        "request_id": "r-1",
        "job_id": "j-1",
        "message": "took 3 jobs",
        "level": "warning",
        "logger": "api.jobs",
    }


def test_a_traceback_stays_on_the_line(configure: Callable[..., io.StringIO]) -> None:
    stream = configure()
    try:
        raise ZeroDivisionError
    except ZeroDivisionError:
        logging.getLogger("any").exception("it failed")
    (line,) = stream.getvalue().splitlines()
    assert "ZeroDivisionError" in json.loads(line)["exception"]


def test_loggers_with_handlers_of_their_own_come_into_line(
    configure: Callable[..., io.StringIO], capsys: pytest.CaptureFixture[str]
) -> None:
    library = logging.getLogger("some_library")
    library.addHandler(logging.StreamHandler(sys.stdout))
    library.propagate = False
    stream = configure()
    library.error("from a library")
    assert json.loads(stream.getvalue())["message"] == "from a library"
    assert capsys.readouterr().out == ""


def test_people_get_words(configure: Callable[..., io.StringIO]) -> None:
    stream = configure(log_format="console")
    logging.getLogger("any").info("hello", extra={"job_id": "j-1"})
    (line,) = stream.getvalue().splitlines()
    assert "hello" in line
    assert "j-1" in line
    with pytest.raises(json.JSONDecodeError):
        json.loads(line)


@pytest.mark.parametrize("log_format", ["json", "console"])
@pytest.mark.parametrize(
    ("said", "hidden"),
    [
        ("GET http://s3/b/k?X-Amz-Algorithm=AWS4&X-Amz-Signature=abcdef0123", "abcdef0123"),
        (f"/files?key=jobs/a&signature={'ab12' * 16}", "ab12ab12"),
        ("to /b/k?response-content-type=x&X-Amz-Credential=AKIA77", "AKIA77"),
        ("connecting to postgresql://user:pa55word@host/db", "pa55word"),
        ("redis://:pa55word@host", "pa55word"),
        ("headers: Authorization: Bearer cdsr_0123456789abcdef", "cdsr_0123456789abcdef"),
        ('the key is quo"ted-secret', "ted-secret"),
        ("the secret is plain-secret!", "plain-secret"),
    ],
)
def test_credentials_are_blotted_out(
    configure: Callable[..., io.StringIO], log_format: str, said: str, hidden: str
) -> None:
    stream = configure(log_format=log_format, secrets=["plain-secret", 'quo"ted-secret', "no"])
    try:
        raise ValueError(said)
    except ValueError:
        logging.getLogger("any").exception("%s", said, extra={"detail": said})
    text = stream.getvalue()
    assert hidden not in text
    assert "[redacted]" in text


def test_a_refused_specification_does_not_name_its_captions() -> None:
    with pytest.raises(ValueError, match="teacher") as refused:
        DistillationSpec.model_validate(
            {"teacher": "", "captions": {"kind": "inline", "texts": ["my private caption", ""]}}
        )
    assert "private" not in str(refused.value)


def test_the_trainer_logs_under_the_ids_that_its_environment_gives(tmp_path: Path) -> None:
    (tmp_path / "spec.json").write_text('{"teacher": "none"}')
    ended = subprocess.run(
        [sys.executable, "-m", "core.run", "--spec", str(tmp_path / "spec.json"), "--workdir", str(tmp_path)],
        cwd=REPOSITORY,
        env={"LOG_FIELDS": '{"job_id": "j-1", "attempt": 2}', "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 1
    entries = [json.loads(line) for line in ended.stderr.splitlines()]
    assert {(entry["process"], entry["job_id"], entry["attempt"]) for entry in entries} == {
        ("trainer", "j-1", 2)
    }
    assert "UnknownTeacherError" in entries[-1]["exception"]
