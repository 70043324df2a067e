"""What must hold of a job after any fault: one result, the right one, and a whole history."""

import io
import json
import zipfile
from typing import Any
from urllib.request import urlopen

from store.artifacts import get_student_archive, list_artifacts
from store.database import transaction

ALL_STEPS = [1, 2, 3, 4, 5, 6]


def student_steps(workplace: Any, job_id: str) -> list[list[int]]:
    """The steps that the student of a job has learnt, each with the process that made it."""
    with transaction(workplace.engine) as session:
        key = get_student_archive(session, job_id).key
    with urlopen(workplace.objects.presigned_get(key)) as answer:
        archive = zipfile.ZipFile(io.BytesIO(answer.read()))
    steps: list[list[int]] = json.loads(archive.read("unet/steps.json"))
    return steps


def assert_one_right_result(workplace: Any, job_id: str) -> None:
    """The job has succeeded once, with every step learnt once, and its history has neither gap nor double."""
    job, events = workplace.job(job_id), workplace.events(job_id)
    assert (job.status, job.result) == ("succeeded", {"steps": 6})
    assert [step for step, _ in student_steps(workplace, job_id)] == ALL_STEPS
    assert [event.sequence for event in events] == list(range(1, job.last_sequence + 1))
    told = [(event.sequence, event.data["status"]) for event in events if event.type == "status"]
    assert told == [(transition.sequence, transition.status) for transition in job.transitions]
    assert [status for _, status in told].count("succeeded") == 1


def everything_of(workplace: Any, job_id: str) -> tuple[object, ...]:
    """All that is recorded of a job, to be compared before and after."""
    job = workplace.job(job_id)
    with transaction(workplace.engine) as session:
        files = [(file.key, file.sha256) for file in list_artifacts(session, job_id)]
    columns = {column.name: getattr(job, column.name) for column in job.__table__.columns}
    return columns, files, [(event.sequence, event.type, event.data) for event in workplace.events(job_id)]
