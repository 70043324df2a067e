"""What a user asks of a running training between two of its steps, after which it goes on."""

from collections.abc import Mapping
from datetime import datetime
from typing import Literal

from sqlalchemy.orm import Session

from store.errors import JobNotTrainingError
from store.events import SAMPLE_REQUESTED_EVENT, SAVE_REQUESTED_EVENT, NewEvent, note_event
from store.job_queries import get_job
from store.models import Job, Phase

StepWish = Literal["checkpoint", "sample"]
"""What a trainer is asked to do between two of its steps, and then to go on."""

STEP_WISHES: Mapping[StepWish, str] = {"checkpoint": "save_requested", "sample": "sample_requested"}
"""The column in which each stands."""

STEP_PHASES: frozenset[Phase] = frozenset({"training", "few_step"})
"""The phases whose work goes in steps, between which a trainer can be asked for something."""

_STEP_WISH_EVENTS: Mapping[StepWish, str] = {
    "checkpoint": SAVE_REQUESTED_EVENT,
    "sample": SAMPLE_REQUESTED_EVENT,
}


def request_at_step(session: Session, *, job_id: str, wish: StepWish, now: datetime) -> Job:
    """Ask a running training for a checkpoint or for pictures, by its worker's next heartbeat.

    Returns
    -------
    Job
        The job afterwards. Asking again, before the worker has heard, changes nothing.

    Raises
    ------
    JobNotTrainingError
        If it does not run, is at a phase without steps, or has been asked to stop.
    """
    job = get_job(session, job_id, for_update=True)
    if job.status != "running":
        raise JobNotTrainingError(f"The job is {job.status}: only a training that runs can be asked for it.")
    if job.cancel_requested or job.pause_requested:
        raise JobNotTrainingError("The job has been asked to stop; it writes a checkpoint as it does.")
    if job.phase not in STEP_PHASES:
        at = f"at its phase {job.phase}" if job.phase else "yet to begin its first phase"
        raise JobNotTrainingError(f"The job is {at}: it can be asked for it while it trains.")
    if not getattr(job, STEP_WISHES[wish]):
        setattr(job, STEP_WISHES[wish], True)
        note_event(session, job, NewEvent(_STEP_WISH_EVENTS[wish], {}), now=now)
    return get_job(session, job.id)
