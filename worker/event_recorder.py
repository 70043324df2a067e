"""The trainer's events on their way from its file into the job's history.

A report whose commit was in doubt is offered again unchanged, under the same position in the file, so that it
is recorded once. Later events wait for the next one.

Every row is kept as long as the job. So of the progress that a phase makes between two reports the last is
told; the rest is made within moments and would say nothing more.
"""

from store.database import Clock, Engine, transaction
from store.events import NewEvent
from store.jobs import Claim
from store.leases import Report, record_events
from worker.trainer_events import EventTail, MetricsEvent, ProgressEvent, TrainerEvent


class EventRecorder:
    """Reads the events of one attempt and makes reports of them.

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

    Attributes
    ----------
    is_urgent
        Whether more than progress and metrics waits.
    """

    def __init__(self, *, engine: Engine, claim: Claim, tail: EventTail, clock: Clock) -> None:
        self._engine = engine
        self._claim = claim
        self._tail = tail
        self._clock = clock
        self._kept: list[NewEvent] = []
        self._offered: Report | None = None
        self.is_urgent = False

    @property
    def has_unrecorded(self) -> bool:
        """Whether events wait to be recorded."""
        return bool(self._kept) or self._offered is not None

    def read(self) -> list[TrainerEvent]:
        """Return what the trainer has said since the last call."""
        return self._tail.read()

    def keep(self, event: TrainerEvent) -> None:
        """Keep an event for the record, in place of the last one of the same phase's progress."""
        if isinstance(event, ProgressEvent):
            same = (event.type, event.phase)
            self._kept = [kept for kept in self._kept if (kept.type, kept.data.get("phase")) != same]
        self.is_urgent |= not isinstance(event, ProgressEvent | MetricsEvent)
        self._kept.append(NewEvent(event.type, event.model_dump(mode="json", exclude={"type"})))

    def offer(self) -> Report | None:
        """Return what is to be recorded next, the same until it is; None for nothing."""
        if self._offered is None and self._kept:
            self._offered, self._kept, self.is_urgent = Report(self._kept, self._tail.position), [], False
        return self._offered

    def settle(self) -> None:
        """Take what was offered as recorded."""
        self._offered = None

    def record(self) -> None:
        """Record what was kept; after `UnavailableError` the next call goes on where this one failed."""
        while (report := self.offer()) is not None:
            with transaction(self._engine) as session:
                record_events(
                    session,
                    job_id=self._claim.job_id,
                    lease_token=self._claim.lease_token,
                    events=report.events,
                    position=report.position,
                    now=self._clock(session),
                )
            self.settle()
