"""The judgement: what must hold of every job once the dust has settled, whatever was done to it."""

import hashlib
import io
import json
import zipfile
from collections import Counter
from itertools import pairwise
from urllib.request import urlopen

from sqlalchemy import Engine, select

from benchmarks.fault_campaign.service import MAX_ATTEMPTS
from store.artifacts import get_student_archive
from store.database import Session, transaction
from store.events import list_events
from store.job_queries import get_job
from store.jobs import ALLOWED_MOVES
from store.models import TERMINAL_STATUSES, Job
from store.objects import ObjectStore

STEPS = [1, 2, 3, 4, 5, 6]
LOSSES = {"worker_lost", "trainer_crashed"}


def judge(engine: Engine, objects: ObjectStore, submitted: list[str], cancelled: set[str]) -> list[str]:
    """Say all that is wrong.

    Parameters
    ----------
    engine, objects
        Where everything is.
    submitted
        Every job that was asked for, once.
    cancelled
        Those that a user may have cancelled.
    """
    with transaction(engine) as session:
        there = Counter(session.scalars(select(Job.id)))
    wrong = [f"{job_id} is lost" for job_id in set(submitted) - set(there)]
    wrong += [f"{job_id} was asked for by nobody" for job_id in set(there) - set(submitted)]
    if len(submitted) != len(set(submitted)):
        wrong.append("two submissions were answered with the same job")
    for job_id in sorted(set(submitted) & set(there)):
        with transaction(engine) as session:
            complaints = _judge_job(session, objects, job_id, may_be_cancelled=job_id in cancelled)
        wrong += [f"{job_id}: {complaint}" for complaint in complaints]
    return wrong


def _judge_job(session: Session, objects: ObjectStore, job_id: str, *, may_be_cancelled: bool) -> list[str]:
    job = get_job(session, job_id)
    wrong = _judge_history(session, job)
    if job.status not in TERMINAL_STATUSES:
        wrong.append(f"is still {job.status}")
    elif job.status == "succeeded":
        wrong += _judge_result(session, objects, job)
    elif job.status == "cancelled" and not may_be_cancelled:
        wrong.append("was cancelled by nobody")
    elif job.status == "failed" and (job.reason not in LOSSES or job.attempts_used < MAX_ATTEMPTS):
        wrong.append(f"failed with reason {job.reason} after {job.attempts_used} attempts: {job.message}")
    return wrong


def _judge_history(session: Session, job: Job) -> list[str]:
    wrong = []
    events = list_events(session, job.id, limit=100_000).items
    if [event.sequence for event in events] != list(range(1, job.last_sequence + 1)):
        wrong.append("the numbers of its events have a gap")
    told = [(e.sequence, e.data["status"]) for e in events if e.type == "status"]
    if told != [(transition.sequence, transition.status) for transition in job.transitions]:
        wrong.append("its events and its transitions say different things")
    path = [transition.status for transition in job.transitions]
    if path[0] != "queued" or path[-1] != job.status:
        wrong.append(f"its path {path} does not lead to its status {job.status}")
    if any(after not in ALLOWED_MOVES[before] for before, after in pairwise(path)):
        wrong.append(f"its path {path} has a move that is not allowed")
    attempts = [transition.attempt for transition in job.transitions if transition.status == "running"]
    if attempts != list(range(1, job.attempt + 1)):
        wrong.append(f"its attempts are numbered {attempts}, the last one {job.attempt}")
    ended = [event.sequence for event in events if event.data.get("status") == "succeeded"]
    if ended and ended != [events[-1].sequence]:
        wrong.append("something happened after it had succeeded")
    return wrong


def _judge_result(session: Session, objects: ObjectStore, job: Job) -> list[str]:
    wrong = []
    if job.result != {"steps": len(STEPS)}:
        wrong.append(f"its result is {job.result}")
    archive = get_student_archive(session, job.id)
    with urlopen(objects.presigned_get(archive.key)) as answer:
        content = answer.read()
    if hashlib.sha256(content).hexdigest() != archive.sha256:
        return [*wrong, "its student is not the one that was stored"]
    learnt = json.loads(zipfile.ZipFile(io.BytesIO(content)).read("unet/steps.json"))
    if [step for step, _ in learnt] != STEPS:
        wrong.append(f"its student has learnt {learnt}")
    return wrong
