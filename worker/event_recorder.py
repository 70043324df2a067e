"""The trainer's events on their way from its file into the job's history.

A batch whose commit was in doubt is offered again unchanged, under the same position in the file, so that it
is recorded once. Later events wait behind it.
"""

from dataclasses import dataclass

from store.database import Clock, Engine, transaction
from store.events import NewEvent
from store.jobs import Claim
from store.leases import record_events
from worker.progress_filter import ProgressFilter
from worker.trainer_events import EventTail, ProgressEvent, TrainerEvent


@dataclass(frozen=True)
class _Batch:
    events: list[NewEvent]
    position: int


class EventRecorder:
    """Reads and records the events of one attempt.

    Parameters
    ----------
    engine
        The database.
    claim
        The lease under which events are recorded.
    tail
        Reader of the trainer's file.
    clock
        Tells the time within a transaction.
    """

    def __init__(self, *, engine: Engine, claim: Claim, tail: EventTail, clock: Clock) -> None:
        self._engine = engine
        self._claim = claim
        self._tail = tail
        self._clock = clock
        self._filter = ProgressFilter(few_step=claim.spec.get("few_step") is not None)
        self._kept: list[NewEvent] = []
        self._offered: _Batch | None = None

    @property
    def has_unrecorded(self) -> bool:
        """Whether events wait to be recorded."""
        return bool(self._kept) or self._offered is not None

    def read(self) -> list[TrainerEvent]:
        """Return what the trainer has said since the last call."""
        return self._tail.read()

    def keep(self, event: TrainerEvent) -> None:
        """Keep an event for the record, unless it is one progress event too many."""
        if isinstance(event, ProgressEvent) and not self._filter.lets_through(event):
            return
        self._kept.append(NewEvent(event.type, event.model_dump(mode="json", exclude={"type"})))

    def record(self) -> None:
        """Record what was kept; after `UnavailableError` the next call goes on where this one failed."""
        while self.has_unrecorded:
            if self._offered is None:
                self._offered, self._kept = _Batch(self._kept, self._tail.position), []
            with transaction(self._engine) as session:
                record_events(
                    session,
                    job_id=self._claim.job_id,
                    lease_token=self._claim.lease_token,
                    events=self._offered.events,
                    position=self._offered.position,
                    now=self._clock(session),
                )
            self._offered = None
