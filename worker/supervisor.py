"""Takes a job and makes an attempt at it.

A plain class without Celery: the clock, the worker's name and the trainer's command come in as arguments. A
hint only says that some job waits: the worker takes the one of its queue whose turn it is, or none, so hints
may be doubled or late.
"""

import logging
import shutil
import threading
from collections.abc import Callable

from structlog.contextvars import bound_contextvars

from store.database import Clock, Engine, server_now, transaction
from store.jobs import Claim
from store.objects import ObjectStore
from store.quotas import Quotas
from store.remote_objects import RemoteObjects
from store.settings import Settings
from store.turns import claim_next
from worker import monitoring
from worker.attempt import Attempt, Rhythm
from worker.attempt_files import AttemptFiles
from worker.conclusion import Outcome
from worker.fitness import lack_of_room
from worker.housekeeping import make_room, remove_dead_work, remove_work
from worker.inputs import InputFetcher
from worker.job_log import JobLogger
from worker.trainer import CommandBuilder, core_command

logger = logging.getLogger(__name__)

_MOST_DOUBLINGS = 5  # of the pause after attempts that crashed early


class Supervisor:
    """Runs the jobs of one worker, one at a time.

    Parameters
    ----------
    engine, objects, settings
        The servers and the limits.
    worker
        Name of the worker, shown with the job.
    command
        Builds the trainer's command; the real trainer by default.
    clock
        Tells the time within a transaction; Postgres's own by default.
    rhythm
        Intervals of the supervising loop.
    find_lack
        Says what the machine lacks for a job besides room on its disk; None for nothing.
    """

    def __init__(
        self,
        *,
        engine: Engine,
        objects: ObjectStore,
        settings: Settings,
        worker: str,
        command: CommandBuilder | None = None,
        clock: Clock = server_now,
        rhythm: Rhythm = Rhythm(),  # noqa: B008  # immutable
        find_lack: Callable[[], str | None] = lambda: None,
    ) -> None:
        self._engine = engine
        self._objects = objects
        self._settings = settings
        self._inputs = InputFetcher(
            engine=engine, objects=objects, remote=RemoteObjects(settings), settings=settings
        )
        self._worker = worker
        self._command = command or core_command(settings)
        self._clock = clock
        self._rhythm = rhythm
        self._find_lack = find_lack
        self._early_crashes = 0

    def run(self, stop: threading.Event) -> Outcome:
        """Claim the next job and work on it.

        Parameters
        ----------
        stop
            Set when the worker has to go: the trainer then writes a checkpoint and the job is given back.

        Returns
        -------
        Outcome
            What became of the job in this worker's hands.
        """
        if stop.is_set():
            return "not_claimed"
        self._tidy()
        lack = lack_of_room(self._settings.work_dir, self._settings.min_free_bytes) or self._find_lack()
        if lack is not None:
            logger.error("no job is taken: %s", lack)
            monitoring.DECLINED.inc()
            stop.wait(self._rhythm.recovery)  # a worker that is fit may come to the next hint first
            return "not_claimed"
        claim = self._claim()
        if claim is None:
            return "not_claimed"
        attempt_logger = JobLogger(logger, job_id=claim.job_id, attempt=claim.attempt)
        work_dir = (self._settings.work_dir / claim.job_id / str(claim.attempt)).resolve()
        shutil.rmtree(work_dir, ignore_errors=True)
        files = AttemptFiles(
            engine=self._engine,
            objects=self._objects,
            claim=claim,
            work_dir=work_dir,
            clock=self._clock,
            logger=attempt_logger,
        )
        attempt = Attempt(
            engine=self._engine,
            settings=self._settings,
            claim=claim,
            files=files,
            inputs=self._inputs,
            work_dir=work_dir,
            command=self._command,
            stop=stop,
            clock=self._clock,
            rhythm=self._rhythm,
            logger=attempt_logger,
        )
        try:
            # What the store and libraries log in this thread is about the attempt, too.
            with bound_contextvars(job_id=claim.job_id, attempt=claim.attempt), monitoring.job_in_hand():
                outcome = attempt.run()
            monitoring.ATTEMPTS.labels(outcome).inc()
        finally:
            # Everything worth keeping is in the object store; what is not cannot be told from damage.
            remove_work(work_dir)
            self._inputs.release()
        attempt_logger.info("ended: %s", outcome)
        self._recover(stop, attempt.crashed_early)
        return outcome

    def _recover(self, stop: threading.Event, crashed_early: bool) -> None:
        """Wait longer and longer while attempts crash early: a sick machine must not have them all."""
        self._early_crashes = self._early_crashes + 1 if crashed_early else 0
        if self._early_crashes > 1:
            doublings = min(self._early_crashes - 2, _MOST_DOUBLINGS)
            pause = self._rhythm.recovery * 2**doublings
            logger.error("%d attempts in a row crashed early; pausing for %.0f s", self._early_crashes, pause)
            stop.wait(pause)

    def _tidy(self) -> None:
        """Make room on the disk before the lease of a new job begins."""
        try:
            self._settings.work_dir.mkdir(parents=True, exist_ok=True)
            remove_dead_work(self._engine, self._settings.work_dir)
            make_room(self._settings)
        except OSError as error:  # another worker of this machine clears the same folders
            logger.warning("the folders are not cleared: %s", error)

    def _claim(self) -> Claim | None:
        with transaction(self._engine) as session:
            return claim_next(
                session,
                queue=self._settings.worker_queue,
                worker=self._worker,
                now=self._clock(session),
                lease_seconds=self._settings.lease_seconds,
                quotas=Quotas.by_default(self._settings),
                lesser=self._settings.lesser_queues,
            )
