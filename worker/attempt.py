"""One attempt at a job, from the claim to the move that ends it.

The trainer runs in a child process. Around it turns one loop: read its events and record them, beat, look
whether it shall stop. Files move in a thread of their own (`worker.transfers`), so that a long upload never
delays a beat. Whatever the database refuses because the lease is gone ends the attempt at once: the trainer
is killed and nothing more is written.
"""

import json
import math
import threading
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from core.exit_status import CRASHED, DISK_FULL, FAILED, FULL_DISK
from store.database import Clock, Engine, transaction
from store.endings import ending_of
from store.errors import LeaseLostError, UnavailableError, UnusableInputError
from store.jobs import Claim
from store.leases import StopWish, heartbeat
from store.logs import child_environment
from store.models import Reason
from store.settings import Settings
from store.step_wishes import StepWish
from worker import monitoring
from worker.attempt_files import AttemptFiles
from worker.conclusion import Conclusion, Outcome
from worker.event_recorder import EventRecorder
from worker.inputs import FetchedInputs, InputFetcher
from worker.job_log import JobLogger
from worker.trainer import (
    CommandBuilder,
    Trainer,
    ask_at_step,
    describe_exit,
    fetched_options,
)
from worker.trainer_events import (
    ArtifactEvent,
    CheckpointEvent,
    EventTail,
    FailedEvent,
    MetricsEvent,
    ResultEvent,
    SampleEvent,
    TrainerEvent,
)
from worker.transfers import Transfer, Transfers

_LONGEST_MESSAGE = 4_000
_LAST_REQUEST_SECONDS = 10.0


@dataclass(frozen=True)
class Rhythm:
    """How often the loop does what, in seconds.

    Attributes
    ----------
    poll
        Reads what the trainer says, and whether it has ended.
    report
        Tells the database what it says, at most.
    retry
        Tries again while the database is away.
    recovery
        Lets a machine be on which no job can be made or the last ones crashed at once, at first.
    """

    poll: float = 0.2
    report: float = 1.0
    retry: float = 1.0
    recovery: float = 10.0

    def patience(self, ran: float) -> float:
        """Say how long progress and losses may wait to be reported when the attempt has run for so long.

        Users watch every second of a young job, and of one that runs for hours nobody sees them. A thirtieth
        of the time that it has run lets a page lag behind by no more than it shows.
        """
        return max(self.report, ran / 30)


class Attempt:
    """One attempt; `run` is called once.

    Parameters
    ----------
    engine, settings
        The database; leases, graces and limits.
    claim
        The lease under which everything is written.
    files
        The attempt's file transfers.
    inputs
        Fetches what the job reads that lies elsewhere.
    work_dir
        A folder for the trainer, which is not there yet.
    command
        Builds the trainer's command.
    stop
        Set when the worker itself has to go.
    clock
        Tells the time within a transaction.
    rhythm
        Intervals of the loop.
    logger
        Log of the attempt.
    """

    def __init__(
        self,
        *,
        engine: Engine,
        settings: Settings,
        claim: Claim,
        files: AttemptFiles,
        inputs: InputFetcher,
        work_dir: Path,
        command: CommandBuilder,
        stop: threading.Event,
        clock: Clock,
        rhythm: Rhythm,
        logger: JobLogger,
    ) -> None:
        self._engine = engine
        self._settings = settings
        self._claim = claim
        self._lease: dict[str, Any] = {"job_id": claim.job_id, "lease_token": claim.lease_token}
        self._files = files
        self._inputs = inputs
        self._fetched = FetchedInputs()
        self._given_up = threading.Event()
        self._work_dir = work_dir
        self._spec = work_dir / "spec.json"
        self._command = command
        self._stop = stop
        self._clock = clock
        self._rhythm = rhythm
        self._logger = logger
        self._conclusion = Conclusion(
            engine=engine, settings=settings, claim=claim, stop=stop, clock=clock, logger=logger
        )
        self._transfers = Transfers(patience_seconds=settings.upload_patience_seconds, logger=logger)
        self._recorder = EventRecorder(
            engine=engine, claim=claim, tail=EventTail(work_dir / "events.jsonl"), clock=clock
        )
        self._training = monitoring.TrainingMonitor()
        self._wish: StopWish | None = None
        self._handed_on: frozenset[StepWish] = frozenset()
        self._failure: FailedEvent | None = None
        self._result: dict[str, Any] | None = None
        self._student: Transfer | None = None
        self._trainer: Trainer | None = None
        self._has_checkpoint = False
        self._began = time.monotonic()
        self._beat_at = -math.inf
        self._is_heard = True

    def run(self) -> Outcome:
        """Work on the job until it ends, has to be given back or is lost."""
        try:
            return self._work()
        except LeaseLostError:
            self._logger.warning("the lease was lost; the trainer is killed and nothing more is written")
            return "lease_lost"
        finally:
            self._given_up.set()
            self._kill_trainer()
            self._transfers.abandon()
            self._transfers.join(_LAST_REQUEST_SECONDS)

    @property
    def crashed_early(self) -> bool:
        """Whether it crashed without a checkpoint: if several do in a row the machine may be sick."""
        return self._conclusion.is_crash and not self._has_checkpoint

    def _work(self) -> Outcome:
        try:
            error = self._prepare()
            if self._shall_stop:
                return self._conclusion.release()
            if isinstance(error, UnusableInputError):
                return self._conclusion.fail(ending_of(error.reason, error.detail, error.hint))
            if error is not None:
                message = f"The attempt could not be prepared: {error}"
                return self._conclusion.crash(message, _reason_of(error))
            self._trainer = self._start()
            return self._conclude(self._supervise(self._trainer))
        except OSError as error:
            # This machine's disk fails: the job would otherwise wait for its lease to end.
            self._kill_trainer()
            return self._conclusion.crash(f"The worker could not go on: {error}", _reason_of(error))

    def _kill_trainer(self) -> None:
        if self._trainer is not None:
            self._trainer.kill()

    def _prepare(self) -> Exception | None:
        """Bring all that the trainer reads while beating, as long as the attempt shall go on.

        From when the specification is written nothing that is used in the cache is removed from it.
        """
        steps = {
            "write the specification": self._write_spec,
            "fetch inputs": self._fetch_inputs,
            "fetch checkpoint": self._files.restore_checkpoint,
        }
        for name, work in steps.items():
            error = self._await(Transfer(name, work))
            if error is not None or self._shall_stop:
                return error
        return None

    def _write_spec(self) -> None:
        self._work_dir.mkdir(parents=True)
        self._spec.write_text(json.dumps(self._claim.spec), encoding="utf-8")

    def _await(self, transfer: Transfer) -> Exception | None:
        """Let something be fetched while beating, as long as the attempt shall go on."""
        self._transfers.submit(transfer)
        while not transfer.finished.wait(self._rhythm.poll):
            self._tick()
            if self._shall_stop:
                break
        return transfer.error

    def _fetch_inputs(self) -> None:
        def go_on() -> None:
            if self._given_up.is_set():
                raise LeaseLostError("The attempt is over.")

        self._fetched = self._inputs.fetch(self._claim.spec, self._claim.tenant_id, go_on)

    @property
    def _shall_stop(self) -> bool:
        """Whether the user wants the trainer to stop, its time is over or the worker has to go."""
        return self._wish is not None or self._stop.is_set()

    def _start(self) -> Trainer:
        command = [*self._command(self._spec, self._work_dir), *fetched_options(self._fetched)]
        environment = child_environment(
            self._settings, job_id=self._claim.job_id, attempt=self._claim.attempt
        )
        trainer = Trainer(command, self._work_dir / "trainer.log", environment)
        self._logger.info("trainer started as process %d", trainer.pid)
        return trainer

    def _supervise(self, trainer: Trainer) -> int:
        """Turn the loop until the trainer has ended; its exit code."""
        kill_at: float | None = None
        while (exit_code := trainer.wait(self._rhythm.poll)) is None:
            self._tick()
            if kill_at is None and self._shall_stop:
                self._logger.info("the trainer is asked to stop: %s", self._wish or "the worker has to go")
                trainer.ask_to_stop()
                kill_at = time.monotonic() + self._settings.cancel_grace_seconds
            if kill_at is not None and time.monotonic() >= kill_at:
                self._logger.warning("the trainer did not stop in time and is killed")
                trainer.kill()
        self._logger.info("the trainer ended with exit code %d", exit_code)
        return exit_code

    def _conclude(self, exit_code: int) -> Outcome:
        """Bring in what the trainer left, then make the move that its end calls for."""
        self._read_events()
        student, result, failure = self._student, self._result, self._failure
        finished = exit_code == 0 and student is not None and result is not None
        self._transfers.submit(Transfer("store log", self._files.store_log, outdated_by="log"))
        self._transfers.close()
        if not finished:
            self._transfers.hurry(self._settings.cancel_grace_seconds)
        self._await_transfers(give_up_on_cancel=finished)
        self._conclusion.insist(self._recorder.record)
        if self._wish == "cancel":
            return self._conclusion.release()
        if exit_code == 0 and student is not None and result is not None:
            return self._conclude_finished(student, result)
        if exit_code == FAILED and failure is not None:
            ending = ending_of(failure.reason, failure.message[:_LONGEST_MESSAGE], failure.hint)
            if failure.reason == "out_of_memory":
                return self._conclusion.out_of_memory(ending)
            if failure.reason != "storage_full":
                return self._conclusion.fail(ending)
        if self._shall_stop:
            return self._conclusion.release()
        if exit_code == DISK_FULL or (failure is not None and failure.reason == "storage_full"):
            return self._conclusion.crash("The worker's disk is full.", "storage_full")
        if exit_code == CRASHED and failure is not None:
            return self._conclusion.crash(failure.message[:_LONGEST_MESSAGE])
        return self._conclusion.crash(describe_exit(exit_code))

    def _conclude_finished(self, student: Transfer, result: dict[str, Any]) -> Outcome:
        if student.error is None:
            return self._conclusion.succeed(result)
        if self._stop.is_set():
            return self._conclusion.release()
        if _reason_of(student.error) == "storage_full":
            message = f"The student does not fit on the worker's disk: {student.error}"
            return self._conclusion.crash(message, "storage_full")
        message = f"The student could not be stored: {student.error}"
        return self._conclusion.fail(ending_of("storage_unavailable", message))

    def _await_transfers(self, *, give_up_on_cancel: bool) -> None:
        """Keep the lease until the files are stored, as long as somebody wants them."""
        hurried = False
        while not self._transfers.idle:
            self._transfers.join(self._rhythm.poll)
            self._tick()
            if self._wish == "cancel" and give_up_on_cancel:
                self._transfers.abandon()
                return
            if not hurried and (self._stop.is_set() or self._wish == "cancel"):
                hurried = True
                self._transfers.hurry(self._settings.cancel_grace_seconds)

    def _tick(self) -> None:
        """Do what is due: read events, beat. A database that is away is tried again later."""
        if self._transfers.lease_lost.is_set():
            raise LeaseLostError("The job is no longer this worker's.")
        self._read_events()
        now = time.monotonic()
        if now - self._beat_at >= self._pause(now):
            self._beat_at, self._is_heard = now, self._beat()

    def _pause(self, now: float) -> float:
        """Give the pause from one beat to the next, which takes along what the trainer said."""
        if not self._is_heard:
            return self._rhythm.retry
        longest = self._settings.heartbeat_seconds
        if not self._recorder.has_unrecorded:
            return longest
        ran = 0.0 if self._recorder.is_urgent else now - self._began
        return min(self._rhythm.patience(ran), longest)

    def _beat(self) -> bool:
        """Extend the lease and report; False when the database is away, and the report is kept."""
        report = self._recorder.offer()
        try:
            with transaction(self._engine) as session:
                reply = heartbeat(
                    session,
                    **self._lease,
                    now=self._clock(session),
                    lease_seconds=self._settings.lease_seconds,
                    handed_on=self._handed_on,
                    report=report,
                )
        except UnavailableError as error:
            self._logger.warning("no heartbeat: %s", error.detail)
            monitoring.HEARTBEATS_FAILED.inc()
            return False
        self._recorder.settle()
        monitoring.LAST_HEARTBEAT.set_to_current_time()
        # Where a wish is withdrawn while the trainer stops, giving the job back queues it again.
        self._wish = reply.stop or self._wish
        self._handed_on = frozenset(wish for wish in reply.wishes if self._hand_on(wish))
        return True

    def _hand_on(self, wish: StepWish) -> bool:
        """Ask the trainer for something; False where that cannot be written now, and it is tried again."""
        try:
            ask_at_step(self._work_dir, wish)
        except OSError as error:
            self._logger.warning("the trainer cannot be asked for a %s: %s", wish, error)
            return False
        return True

    def _read_events(self) -> None:
        for event in self._recorder.read():
            self._take(event)

    def _take(self, event: TrainerEvent) -> None:
        """Send the files that an event speaks of; keep the event itself for the record where it has one.

        A file's own event is recorded with its row, once it can be downloaded. The result and a failure
        are recorded by the move that ends the job.
        """
        if isinstance(event, CheckpointEvent):
            self._has_checkpoint = True
            self._files.hold_checkpoint(event)
            work = partial(self._files.store_checkpoint, event)
            self._transfers.submit(Transfer(f"store {event.path}", work, outdated_by="checkpoint"))
            self._transfers.submit(Transfer("store log", self._files.store_log_end, outdated_by="log"))
        elif isinstance(event, SampleEvent):
            work = partial(self._files.store_sample, event)
            self._transfers.submit(Transfer(f"store {event.path}", work))
        elif isinstance(event, ArtifactEvent):
            work = partial(self._files.store_student, event.path)
            self._student = self._transfers.submit(Transfer("store student", work))
        elif isinstance(event, ResultEvent):
            self._result = event.values
        elif isinstance(event, FailedEvent):
            self._failure = event
        else:
            if isinstance(event, MetricsEvent):
                self._training.take(event)
            self._recorder.keep(event)


def _reason_of(error: Exception) -> Reason:
    """Say for what an error of the worker's own counts: a full disk is one's operator's to mend."""
    is_full_disk = isinstance(error, OSError) and error.errno in FULL_DISK
    return "storage_full" if is_full_disk else "trainer_crashed"
