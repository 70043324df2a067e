"""The files of one attempt: what is fetched before it and what it leaves in the object store.

Every method may be repeated: files already sent are not sent again. Rows in Postgres are written only once
all files they speak of are stored, under the lease. Keys lie under the attempt's own prefix, so a worker that
was given up cannot replace a file of its successor.
"""

import os
import shutil
import threading
from collections.abc import Sequence
from pathlib import Path

from store.artifacts import StoredCheckpoint, attempt_prefix, list_checkpoints
from store.database import Clock, Engine, transaction
from store.errors import CorruptObjectError
from store.events import NewEvent
from store.jobs import Claim
from store.leases import NewArtifact, add_artifacts, forget_checkpoints, replace_artifact
from store.models import ArtifactKind
from store.objects import ObjectStore, StoredObject
from worker import monitoring
from worker.archive import files_of, write_archive
from worker.job_log import JobLogger
from worker.trainer_events import CheckpointEvent, SampleEvent

KEPT_CHECKPOINTS = 2  # the newest, and the one before in case the newest is damaged
LOG = "trainer.log"
LONGEST_LOG_END = 2**20
"""Bytes of the log that are sent while it grows; the whole of it is sent at the end."""


class AttemptFiles:
    """Moves the files of one attempt.

    Parameters
    ----------
    engine, objects
        The database and the object store.
    claim
        The lease under which rows are written.
    work_dir
        The attempt's folder.
    clock
        Tells the time within a transaction.
    logger
        Log of the attempt.
    """

    def __init__(
        self,
        *,
        engine: Engine,
        objects: ObjectStore,
        claim: Claim,
        work_dir: Path,
        clock: Clock,
        logger: JobLogger,
    ) -> None:
        self._engine = engine
        self._objects = objects
        self._claim = claim
        self._work_dir = work_dir
        self._clock = clock
        self._logger = logger
        self._held = work_dir / "held"
        self._sending: str | None = None
        self._held_changes = threading.Lock()
        self._stored: dict[str, StoredObject] = {}
        self._log_end: tuple[int, StoredObject] | None = None
        self._log_recorded: int | None = None

    def restore_checkpoint(self) -> None:
        """Fetch the newest checkpoint of the job that is undamaged, if there is any."""
        with transaction(self._engine) as session:
            checkpoints = list_checkpoints(
                session, self._claim.job_id, after_attempt=self._claim.scratch_attempt
            )
        for checkpoint in checkpoints:
            try:
                self._fetch(checkpoint)
            except CorruptObjectError as error:
                self._logger.error("checkpoint of step %d is unusable: %s", checkpoint.step, error.detail)
                shutil.rmtree(self._work_dir / "checkpoints")
            else:
                self._logger.info("resumes from step %d of attempt %d", checkpoint.step, checkpoint.attempt)
                return

    def hold_checkpoint(self, event: CheckpointEvent) -> None:
        """Keep a checkpoint for `store_checkpoint`: the trainer removes its old ones, however slow the store.

        It is held by hard links, which take no room until the trainer has removed it. Where they cannot be
        made it is sent from the trainer's own folder, if it is still there by then.

        Those between it and the one that is being sent are given up: its transfer takes their place, and
        while the store is away for long they would fill the disk.
        """
        held = self._held / event.path
        if held.exists():
            return
        try:
            shutil.copytree(self._work_dir / event.path, held, copy_function=os.link)
        except OSError as error:  # copytree's own error, too
            self._logger.warning("%s cannot be held for its upload: %s", event.path, error)
            shutil.rmtree(held, ignore_errors=True)
        else:
            self._release_others(event.path)

    def store_checkpoint(self, event: CheckpointEvent) -> None:
        """Send a checkpoint, then drop those that are no longer needed."""
        with self._held_changes:
            self._sending = event.path
        root = self._held if (self._held / event.path).exists() else self._work_dir
        folder = root / event.path
        files = files_of(folder)
        stored = self._upload([(path, "checkpoint_file") for path in files], step=event.step, root=root)
        # What was half gone must not pass for a whole one.
        if not files or files != files_of(folder):
            raise FileNotFoundError(f"{event.path} was removed before it could be stored")
        self._record(stored, NewEvent("checkpoint", {"step": event.step, "path": event.path}))
        self._drop_old_checkpoints()
        # Last, as whatever fails before is done again from here.
        shutil.rmtree(self._held / event.path, ignore_errors=True)

    def _release_others(self, newest: str) -> None:
        """Hold no checkpoint but the newest and the one that is being sent."""
        with self._held_changes:
            kept = {newest, self._sending}
            for held in (self._held / newest).parent.iterdir():
                if held.relative_to(self._held).as_posix() not in kept:
                    shutil.rmtree(held, ignore_errors=True)

    def store_sample(self, event: SampleEvent) -> None:
        """Send a picture."""
        told = NewEvent("sample", {"step": event.step, "path": event.path, "prompts": event.prompts})
        self._record(self._upload([(self._work_dir / event.path, "sample")], step=event.step), told)

    def store_student(self, folder: str) -> None:
        """Send the student, file by file and as one archive, and the result."""
        student = self._work_dir / folder
        archive = self._work_dir / f"{folder}.zip"
        if not archive.exists():
            unfinished = archive.with_suffix(".partial")
            write_archive(student, unfinished)
            unfinished.rename(archive)
        files: list[tuple[Path, ArtifactKind]] = [(path, "student_file") for path in files_of(student)]
        files.append((archive, "student_archive"))
        result = self._work_dir / "result.json"
        if result.exists():
            files.append((result, "result"))
        told = NewEvent("artifact", {"path": folder, "archive": archive.name})
        self._record(self._upload(files), told)

    def store_log_end(self) -> None:
        """Send the end of what the trainer has printed so far, if that is more than when it was last sent.

        A worker that dies leaves at least this, and whoever looks at a running job finds it.
        """
        if self._log_end is None:  # else it is sent already, and could not be recorded
            log = self._work_dir / LOG
            size = log.stat().st_size
            if size in {0, self._log_recorded}:
                return
            end = self._work_dir / f"{LOG}.end"  # a copy, for the log grows
            with log.open("rb") as file:
                file.seek(max(size - LONGEST_LOG_END, 0))
                end.write_bytes(file.read(LONGEST_LOG_END))
            key = f"{attempt_prefix(self._claim.job_id, self._claim.attempt)}{LOG}.{size}"
            self._log_end = size, self._objects.upload_file(end, key)
        size, stored = self._log_end
        self._record_log(stored)
        self._log_recorded, self._log_end = size, None

    def store_log(self) -> None:
        """Send what the trainer printed, and the losses of a training that diverged."""
        log, losses = self._work_dir / LOG, self._work_dir / "divergence.json"
        size = log.stat().st_size
        if size != self._log_recorded or size > LONGEST_LOG_END:
            self._upload([(log, "log")])
            self._record_log(self._stored[LOG])
        if losses.exists():
            self._record(self._upload([(losses, "log")]), None)

    def _upload(
        self,
        files: Sequence[tuple[Path, ArtifactKind]],
        *,
        step: int | None = None,
        root: Path | None = None,
    ) -> list[NewArtifact]:
        """Send files that were not sent before, named from a root, which is the work folder by default."""
        prefix = attempt_prefix(self._claim.job_id, self._claim.attempt)
        artifacts: list[NewArtifact] = []
        for path, kind in files:
            name = path.relative_to(root or self._work_dir).as_posix()
            if name not in self._stored:
                with monitoring.upload_timed(path.stat().st_size):
                    self._stored[name] = self._objects.upload_file(path, prefix + name)
            artifacts.append(_artifact(name, kind, step, self._stored[name]))
        return artifacts

    def _record(self, artifacts: Sequence[NewArtifact], event: NewEvent | None) -> None:
        with transaction(self._engine) as session:
            add_artifacts(
                session,
                job_id=self._claim.job_id,
                lease_token=self._claim.lease_token,
                artifacts=artifacts,
                event=event,
                now=self._clock(session),
            )

    def _record_log(self, stored: StoredObject) -> None:
        with transaction(self._engine) as session:
            replace_artifact(
                session,
                job_id=self._claim.job_id,
                lease_token=self._claim.lease_token,
                artifact=_artifact(LOG, "log", None, stored),
                now=self._clock(session),
            )

    def _fetch(self, checkpoint: StoredCheckpoint) -> None:
        for file in checkpoint.files:
            self._objects.download_file(file.key, self._work_dir / file.path, sha256=file.sha256)

    def _drop_old_checkpoints(self) -> None:
        with transaction(self._engine) as session:
            old = list_checkpoints(session, self._claim.job_id)[KEPT_CHECKPOINTS:]
            if not old:
                return
            forget_checkpoints(
                session,
                job_id=self._claim.job_id,
                lease_token=self._claim.lease_token,
                steps_by_attempt=[(checkpoint.attempt, checkpoint.step) for checkpoint in old],
                now=self._clock(session),
            )


def _artifact(path: str, kind: ArtifactKind, step: int | None, stored: StoredObject) -> NewArtifact:
    return NewArtifact(
        path=path, kind=kind, step=step, key=stored.key, size=stored.size, sha256=stored.sha256
    )
