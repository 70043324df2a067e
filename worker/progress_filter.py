"""Which of a trainer's many progress events are worth a row in the job's history.

Every row is kept as long as the job. So a step is recorded when it moves the job by a thousandth, when its
phase is complete, or when nothing was recorded for a while.
"""

import time
from collections.abc import Callable

from store.progress import overall_progress
from worker.trainer_events import ProgressEvent

_SMALLEST_STEP = 0.001
_LONGEST_SILENCE_SECONDS = 10.0


class ProgressFilter:
    """Lets the noteworthy progress events of one attempt through.

    Parameters
    ----------
    few_step
        Whether the job asks for a few-step transfer.
    monotonic
        A clock that never goes back.
    """

    def __init__(self, *, few_step: bool, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._few_step = few_step
        self._monotonic = monotonic
        self._progress = -1.0
        self._at = 0.0

    def lets_through(self, event: ProgressEvent) -> bool:
        """Tell whether to record this event; if so, later ones are measured against it."""
        progress = overall_progress(event.phase, event.done, event.total, few_step=self._few_step)
        now = self._monotonic()
        noteworthy = (
            progress >= self._progress + _SMALLEST_STEP
            or event.done == event.total
            or now >= self._at + _LONGEST_SILENCE_SECONDS
        )
        if noteworthy:
            self._progress, self._at = progress, now
        return noteworthy
