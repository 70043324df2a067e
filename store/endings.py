"""Why a job ended or was given back: a code, a sentence and a hint for the user.

Failures that the trainer reports bring their own sentence; the ones here are the service's.
"""

from dataclasses import dataclass

from store.models import Reason


@dataclass(frozen=True)
class Ending:
    """What a job says about its end."""

    reason: Reason | None = None
    message: str | None = None
    hint: str | None = None


GOOD_END = Ending()
CANCELLED = Ending("cancelled_by_user", "Cancelled on request.")
WORKER_STOPPED = Ending("worker_stopped", "The worker was stopped; the job goes on elsewhere.")
WORKER_LOST = Ending(
    "worker_lost",
    "The worker stopped reporting.",
    "Look for a host that went down or ran out of memory, then submit the job again.",
)


def trainer_crashed(message: str) -> Ending:
    """The trainer ended without saying why; ``message`` tells how."""
    return Ending(
        "trainer_crashed", message, "The trainer's log of every attempt is among the job's artefacts."
    )
