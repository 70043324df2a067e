"""Takes generations and has them drawn, one at a time, as long as somebody waits for them.

A plain class without Celery, as `worker.supervisor` is for jobs. It holds a generation by a short lease and
gives it up as soon as that is lost: because the generation was cancelled, or its page closed.
"""

import logging
import tempfile
import threading
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any, Literal

from core.exit_status import FULL_DISK
from store.artifacts import StudentUNet, find_student_unet
from store.database import Clock, Engine, server_now, transaction
from store.errors import (
    CorruptObjectError,
    LeaseLostError,
    NotFoundError,
    UnavailableError,
    UnusableInputError,
)
from store.generation_endings import GenerationEnding, generation_ending
from store.generations import (
    Drawing,
    GenerationClaim,
    Picture,
    add_picture,
    claim_next_generation,
    fail_generation,
    finish_generation,
    picture_key,
    release_generation,
)
from store.models import GENERATION_REASONS
from store.objects import ObjectStore
from store.remote_objects import RemoteObjects
from store.settings import Settings
from store.unclaimed import announce, give_up
from worker.drawer import Answer, Drawer, DrawerLostError, DrawingStopped
from worker.generation_lease import GenerationLease
from worker.housekeeping import make_room
from worker.inputs import InputFetcher

logger = logging.getLogger(__name__)

GenerationOutcome = Literal["not_claimed", "succeeded", "failed", "given_up", "queued"]

BEAT_SECONDS = 0.5


class InteractiveSupervisor:
    """Draws the generations of one worker, one at a time.

    Parameters
    ----------
    engine, objects, settings
        The servers and the limits.
    worker
        Name of the worker.
    drawer
        The process that draws.
    clock
        Tells the time within a transaction; Postgres's own by default.
    """

    def __init__(
        self,
        *,
        engine: Engine,
        objects: ObjectStore,
        settings: Settings,
        worker: str,
        drawer: Drawer,
        clock: Clock = server_now,
    ) -> None:
        self._engine = engine
        self._objects = objects
        self._settings = settings
        self._worker = worker
        self._drawer = drawer
        self._clock = clock
        self._inputs = InputFetcher(
            engine=engine, objects=objects, remote=RemoteObjects(settings), settings=settings
        )

    def run_all(self, stop: threading.Event) -> list[GenerationOutcome]:
        """Draw until nothing waits any more, so that a lost hint delays nothing."""
        outcomes: list[GenerationOutcome] = []
        while (outcome := self.run(stop)) != "not_claimed":
            outcomes.append(outcome)
        return outcomes

    def run(self, stop: threading.Event) -> GenerationOutcome:
        """Take the next generation and have it drawn.

        Parameters
        ----------
        stop
            Set when the worker has to go: the generation is then given back.
        """
        if stop.is_set():
            return "not_claimed"
        with transaction(self._engine) as session:
            claim = claim_next_generation(
                session,
                worker=self._worker,
                now=self._clock(session),
                lease_seconds=self._settings.interactive_lease_seconds,
            )
        if claim is None:
            return "not_claimed"
        lease = GenerationLease(
            self._engine,
            self._clock,
            claim,
            lease_seconds=self._settings.interactive_lease_seconds,
            beat_seconds=BEAT_SECONDS,
        )
        with lease:
            try:
                outcome = self._draw_and_conclude(claim, lease, stop)
            finally:
                self._inputs.release()
        logger.info("generation %s: %s", claim.generation_id, outcome)
        return outcome

    def _draw_and_conclude(
        self, claim: GenerationClaim, lease: GenerationLease, stop: threading.Event
    ) -> GenerationOutcome:
        held: dict[str, Any] = {"generation_id": claim.generation_id, "lease_token": claim.lease_token}
        try:
            ending = self._draw(claim, lease, stop)
            with transaction(self._engine) as session:
                now = self._clock(session)
                if ending is None:
                    finish_generation(session, **held, now=now)
                    return "succeeded"
                fail_generation(session, **held, ending=ending, now=now)
                return "failed"
        except DrawingStopped:
            if lease.lost.is_set():
                return "given_up"
            with transaction(self._engine) as session:
                release_generation(session, **held, now=self._clock(session))
            return "queued"
        except LeaseLostError:
            return "given_up"
        except UnavailableError as error:  # whoever waits is told when the lease ends
            logger.warning("generation %s is left: %s", claim.generation_id, error.detail)
            return "given_up"

    def _draw(
        self, claim: GenerationClaim, lease: GenerationLease, stop: threading.Event
    ) -> GenerationEnding | None:
        """Fetch the models, draw and store the pictures; why it failed, or None."""
        try:
            drawings = self._fetch(claim, lease)
            with tempfile.TemporaryDirectory() as folder:
                request = _request(claim, drawings, folder)
                answers = self._drawer.draw(request, lambda: not (lease.lost.is_set() or stop.is_set()))
                with closing(answers):
                    return self._store_all(claim, answers)
        except UnusableInputError as error:
            return generation_ending("model_gone", error.detail, error.hint)
        except (NotFoundError, CorruptObjectError) as error:
            logger.warning("generation %s: %s", claim.generation_id, error.detail)
            return generation_ending("model_gone")
        except UnavailableError as error:
            logger.warning("generation %s: %s", claim.generation_id, error.detail)
            return generation_ending("storage_unavailable")
        except DrawerLostError as error:
            return generation_ending("internal_error", str(error))
        except OSError as error:
            logger.exception("generation %s: the worker's disk fails", claim.generation_id)
            return generation_ending("storage_full" if error.errno in FULL_DISK else "internal_error")

    def _fetch(self, claim: GenerationClaim, lease: GenerationLease) -> list[Answer]:
        """Bring the models to this machine, and make room while they are held: they may be wanted again."""
        try:
            drawings = [self._drawing(drawing, lease) for drawing in claim.drawings]
        except OSError as error:
            if error.errno not in FULL_DISK:
                raise
            self._tidy()
            drawings = [self._drawing(drawing, lease) for drawing in claim.drawings]
        self._tidy()
        return drawings

    def _tidy(self) -> None:
        try:
            make_room(self._settings)
        except OSError as error:  # another worker of this machine clears the same folders
            logger.warning("the cache is not cleared: %s", error)

    def _store_all(self, claim: GenerationClaim, answers: Iterable[Answer]) -> GenerationEnding | None:
        for answer in answers:
            if answer["type"] == "drawn":
                self._store(claim, answer)
            elif answer["type"] == "failed":
                return _ending_of(answer)
        return None

    def _drawing(self, drawing: Drawing, lease: GenerationLease) -> Answer:
        """Bring a model to this machine, and say to the drawer where it is."""
        teacher = self._inputs.fetch_teacher(drawing["teacher"], lease.check)
        student = None
        if drawing["model"] == "student":
            with transaction(self._engine) as session:
                unet = find_student_unet(session, drawing["job_id"], attempt=drawing["attempt"])
            student = self._fetch_student(unet, lease)
        how = {name: drawing[name] for name in ("sampler", "steps", "guidance_scale")}
        return {
            "teacher": drawing["teacher"],
            "teacher_revision": drawing["teacher_revision"],
            "fetched_teacher": None if teacher is None else str(teacher),
            "student": None if student is None else str(student),
            "evaluation": how,
        }

    def _fetch_student(self, unet: StudentUNet, lease: GenerationLease) -> Path:
        def make(entry: Path) -> None:
            for file in unet.files:
                lease.check()
                self._objects.download_file(
                    file.key, entry / file.path.rpartition("/")[2], sha256=file.sha256
                )

        return self._inputs.entry("students", unet.name, make, lease.check)

    def _store(self, claim: GenerationClaim, answer: dict[str, Any]) -> None:
        position: int = answer["position"]
        key = picture_key(claim.generation_id, claim.lease_token, position)
        with transaction(self._engine) as session:
            announce(session, key, now=self._clock(session))
        stored = self._objects.upload_file(Path(answer["path"]), key)
        picture = Picture(
            key=key,
            size=stored.size,
            sha256=stored.sha256,
            width=answer["width"],
            height=answer["height"],
            seconds=answer["seconds"],
            load_seconds=answer["load_seconds"],
        )
        try:
            with transaction(self._engine) as session:
                add_picture(
                    session,
                    generation_id=claim.generation_id,
                    lease_token=claim.lease_token,
                    position=position,
                    picture=picture,
                )
        except LeaseLostError:
            with transaction(self._engine) as session:
                give_up(session, key, now=self._clock(session))
            raise


def _request(claim: GenerationClaim, drawings: list[Answer], folder: str) -> Answer:
    return {
        "id": f"{claim.generation_id}/{claim.lease_token}",
        "prompt": claim.prompt,
        "seed": claim.seed,
        "folder": folder,
        "drawings": drawings,
    }


def _ending_of(answer: dict[str, Any]) -> GenerationEnding:
    known = next((reason for reason in GENERATION_REASONS if reason == answer["reason"]), None)
    return generation_ending(known or "internal_error", answer["message"], answer["hint"] or None)
