"""Why a job ended, was given back or was put aside: a code, a sentence and a hint for the user.

The table has both for every code. Where the trainer or the supervisor knows more, its own words come first.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from store.models import Reason


@dataclass(frozen=True)
class Ending:
    """What a job says about its end."""

    reason: Reason | None = None
    message: str | None = None
    hint: str | None = None


@dataclass(frozen=True)
class Explanation:
    """A reason in words, and what its user can do."""

    sentence: str
    hint: str


EXPLANATIONS: Mapping[Reason, Explanation] = {
    "bad_teacher": Explanation(
        "The teacher cannot be read, or is of a kind that cannot be distilled.",
        "Choose a teacher that GET /teachers lists, or mend its files.",
    ),
    "bad_captions": Explanation(
        "The captions cannot be read, or there are none.",
        "Look at the caption source that the specification names.",
    ),
    "out_of_memory": Explanation(
        "The memory of the machine or of its accelerator is used up.",
        "Clone the job with smaller batches: training.micro_batch_size, latents.batch_size, "
        "evaluation.batch_size.",
    ),
    "diverged": Explanation(
        "The loss exploded or is no longer a finite number, also at a lower learning rate.",
        "Look at the curves, then clone the job with a lower training.learning_rate or a longer warm-up.",
    ),
    "max_runtime": Explanation(
        "The job ran for longer than its max_runtime_s.",
        "Retry it: it goes on from its last checkpoint and has the same time again.",
    ),
    "storage_full": Explanation(
        "The worker's disk is full.",
        "Ask the operator to free some space, then retry the job.",
    ),
    "storage_unavailable": Explanation(
        "The object store could not take the job's files.",
        "Ask the operator to look at the object store, then retry the job.",
    ),
    "internal_error": Explanation(
        "The trainer failed in a way that it does not know.",
        "The trainer's log among the job's artefacts has the whole story.",
    ),
    "trainer_crashed": Explanation(
        "The trainer ended without saying why.",
        "The trainer's log of every attempt is among the job's artefacts.",
    ),
    "worker_lost": Explanation(
        "The worker stopped reporting.",
        "Look for a host that went down or ran out of memory, then retry the job.",
    ),
    "worker_stopped": Explanation(
        "The worker was stopped; the job goes on elsewhere.",
        "Nothing needs to be done: no attempt was used up.",
    ),
    "cancelled_by_user": Explanation(
        "Cancelled on request.",
        "A retry goes on from the last checkpoint.",
    ),
    "paused_by_user": Explanation(
        "Paused on request.",
        "Resume it to go on from the last checkpoint.",
    ),
    "resumed_by_user": Explanation(
        "Resumed on request.",
        "Nothing needs to be done: a worker will take it.",
    ),
    "retried_by_user": Explanation(
        "Tried again on request.",
        "Nothing needs to be done: a worker will take it.",
    ),
}


def ending_of(reason: Reason, message: str | None = None, hint: str | None = None) -> Ending:
    """Make an ending in the words of the table, or in better ones.

    Parameters
    ----------
    reason
        Its code.
    message
        What is known of this very occurrence.
    hint
        What to do about this very occurrence.
    """
    known = EXPLANATIONS[reason]
    return Ending(reason, message or known.sentence, hint or known.hint)


GOOD_END = Ending()
CANCELLED = ending_of("cancelled_by_user")
MAX_RUNTIME = ending_of("max_runtime")
PAUSED = ending_of("paused_by_user")
RESUMED = ending_of("resumed_by_user")
RETRIED = ending_of("retried_by_user")
WORKER_LOST = ending_of("worker_lost")
WORKER_STOPPED = ending_of("worker_stopped")
