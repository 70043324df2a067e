"""Why a generation ended without all its pictures: a sentence and a hint for every code."""

from collections.abc import Mapping
from dataclasses import dataclass

from store.endings import Explanation
from store.models import GenerationReason

_AGAIN = "Ask for it again."

EXPLANATIONS: Mapping[GenerationReason, Explanation] = {
    "bad_teacher": Explanation(
        "A model cannot be read on the worker.", "Look at the teacher's files; its jobs would fail as well."
    ),
    "out_of_memory": Explanation(
        "The memory of the worker is used up.", "Ask for one model at a time, or ask the operator for more."
    ),
    "storage_full": Explanation("The worker's disk is full.", "Ask the operator to free some space."),
    "storage_unavailable": Explanation("The object store does not answer.", _AGAIN),
    "internal_error": Explanation(
        "The worker failed in a way that it does not know.", "The worker's log has the whole story."
    ),
    "model_gone": Explanation(
        "The files of a model that was to draw are gone.", "Choose a model of a job that is still there."
    ),
    "worker_lost": Explanation("The worker that drew it was heard of no more.", _AGAIN),
    "not_watched": Explanation(
        "Nobody asked about it any more, so it was not drawn.",
        "Ask again, and read the generation from time to time while it waits.",
    ),
    "cancelled_by_user": Explanation("Cancelled on request.", _AGAIN),
}


@dataclass(frozen=True)
class GenerationEnding:
    """What a generation says about its end."""

    reason: GenerationReason | None = None
    message: str | None = None
    hint: str | None = None


def generation_ending(
    reason: GenerationReason, message: str | None = None, hint: str | None = None
) -> GenerationEnding:
    """Make an ending in the words of the table, or in those of whoever knows more."""
    known = EXPLANATIONS[reason]
    return GenerationEnding(reason, message or known.sentence, hint or known.hint)
