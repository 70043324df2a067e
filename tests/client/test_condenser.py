"""What the client asks of the service as a whole, against the real API."""

from typing import Any

import pytest

from client import Condenser, InvalidRequestError
from core.spec import DistillationSpec, InlineCaptions
from tests.client.conftest import Worker

SPEC = {"teacher": "tiny", "captions": {"kind": "inline", "texts": ["cat", "dog"]}}
RESULT: dict[str, Any] = {
    "teacher": {"parameters": 20_000_000, "gmacs": 2.0, "milliseconds_per_picture": 500.0},
    "student": {"parameters": 5_000_000, "gmacs": 0.5, "milliseconds_per_picture": 250.0},
}


def test_an_estimate_of_a_mapping_or_of_a_typed_specification(condenser: Condenser) -> None:
    estimate = condenser.estimate(SPEC)
    assert estimate.drawn_pictures == 2
    assert estimate.total_seconds is None
    typed = DistillationSpec(teacher="tiny", captions=InlineCaptions(texts=["cat", "dog"]))
    assert condenser.estimate(typed) == estimate
    with pytest.raises(InvalidRequestError, match=r"student\.width"):
        condenser.estimate(SPEC | {"student": {"width": 0.123}})


def test_a_job_tells_what_it_was_to_take(condenser: Condenser) -> None:
    estimate = condenser.jobs.create(SPEC).estimate()
    assert (estimate.drawn_pictures, estimate.taken_seconds, estimate.total_error) == (2, {}, None)


def test_students_are_compared_over_pages(
    condenser: Condenser, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = []
    for _ in range(3):
        ids.append(condenser.jobs.create(SPEC).id)
        worker.take(ids[-1])
        worker.succeed(RESULT)
    monkeypatch.setattr("client.transport.PAGE", 2)
    students = condenser.compare("tiny")
    assert [student.job_id for student in students] == ids[::-1]
    assert students[0].student.seconds_per_picture == 0.25
    assert len(condenser.compare("tiny", limit=1)) == 1
