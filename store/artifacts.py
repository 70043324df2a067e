"""Files that a job has left in the object store.

Rows are written by `store.leases.add_artifacts` once a file is wholly uploaded; this module only reads.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from sqlalchemy import select
from sqlalchemy.orm import Session

from store.errors import NotFoundError
from store.models import TERMINAL_STATUSES, Artifact, ArtifactKind, Job

JOBS_PREFIX = "jobs/"
STUDENT_UNET_FOLDER = "student/unet/"


@dataclass(frozen=True)
class StoredCheckpoint:
    """A complete checkpoint in the object store."""

    attempt: int
    step: int
    files: tuple[Artifact, ...]


def job_prefix(job_id: str) -> str:
    """Key prefix of everything that a job leaves."""
    return f"{JOBS_PREFIX}{job_id}/"


def attempt_prefix(job_id: str, attempt: int) -> str:
    """Key prefix of everything that one attempt uploads; no other attempt writes there."""
    return f"{job_prefix(job_id)}attempts/{attempt}/"


def list_artifacts(
    session: Session,
    job_id: str,
    *,
    kinds: Sequence[ArtifactKind] | None = None,
    since_scratch: bool = False,
) -> list[Artifact]:
    """List a job's files by attempt, step and path.

    Parameters
    ----------
    session
        An open transaction.
    job_id
        The job.
    kinds
        Only files of these kinds; of all by default.
    since_scratch
        Only files of the attempts after its last retry from scratch.
    """
    query = select(Artifact).where(Artifact.job_id == job_id)
    if since_scratch:
        scratch_attempt = select(Job.scratch_attempt).where(Job.id == job_id).scalar_subquery()
        query = query.where(Artifact.attempt > scratch_attempt)
    if kinds is not None:
        query = query.where(Artifact.kind.in_(kinds))
    return list(session.scalars(query.order_by(Artifact.attempt, Artifact.step.nulls_last(), Artifact.path)))


def list_checkpoint_digests(session: Session) -> dict[str, str]:
    """Return the SHA-256 of every file of the checkpoints of jobs that have not ended, by its key."""
    rows = session.execute(
        select(Artifact.key, Artifact.sha256)
        .join(Job, Job.id == Artifact.job_id)
        .where(Artifact.kind == "checkpoint_file", Job.status.not_in(TERMINAL_STATUSES))
    )
    return {row.key: row.sha256 for row in rows}


def get_student_archive(session: Session, job_id: str) -> Artifact:
    """Find the student's archive, that of the latest attempt; `NotFoundError` while there is none."""
    archive = session.scalars(
        select(Artifact)
        .where(Artifact.job_id == job_id, Artifact.kind == "student_archive")
        .order_by(Artifact.attempt.desc())
        .limit(1)
    ).first()
    if archive is None:
        raise NotFoundError("The job has no weights yet.")
    return archive


def find_artifact(
    session: Session, job_id: str, *, attempt: int, path: str, kind: ArtifactKind | None = None
) -> Artifact | None:
    """Find a file that an attempt left, by its path; None when there is none, or it is of another kind."""
    query = select(Artifact).where(
        Artifact.job_id == job_id, Artifact.attempt == attempt, Artifact.path == path
    )
    return session.scalars(query if kind is None else query.where(Artifact.kind == kind)).one_or_none()


@dataclass(frozen=True)
class StudentUNet:
    """The files of an exported student's U-Net, in its own precision.

    ``name`` is that of its content: an attempt exports one student.
    """

    name: str
    files: tuple[Artifact, ...]


def find_student_unet(session: Session, job_id: str, *, attempt: int) -> StudentUNet:
    """Find the config and weights of the student that an attempt exported; `NotFoundError` without any."""
    rows = session.scalars(
        select(Artifact)
        .where(
            Artifact.job_id == job_id,
            Artifact.attempt == attempt,
            Artifact.kind == "student_file",
            Artifact.path.startswith(STUDENT_UNET_FOLDER, autoescape=True),
        )
        .order_by(Artifact.path)
    ).all()
    # Other precisions lie beside it: diffusion_pytorch_model.fp16.safetensors.
    files = tuple(
        row for row in rows if row.path.rpartition("/")[2].count(".") == 1 or row.path.endswith(".index.json")
    )
    if not any(file.path.endswith(".safetensors") for file in files):
        raise NotFoundError("The job has no student that could draw.")
    return StudentUNet(f"{job_id}-{attempt}", files)


def list_checkpoints(session: Session, job_id: str, *, after_attempt: int = 0) -> list[StoredCheckpoint]:
    """List a job's complete checkpoints, the one to resume from first.

    Parameters
    ----------
    session
        An open transaction.
    job_id
        The job.
    after_attempt
        Only checkpoints of later attempts.
    """
    rows = session.scalars(
        select(Artifact)
        .where(Artifact.job_id == job_id, Artifact.kind == "checkpoint_file")
        .where(Artifact.attempt > after_attempt)
        .order_by(Artifact.attempt.desc(), Artifact.step.desc(), Artifact.path)
    )
    return [
        StoredCheckpoint(attempt=attempt, step=step or 0, files=tuple(files))
        for (attempt, step), files in groupby(rows, key=lambda row: (row.attempt, row.step))
    ]
