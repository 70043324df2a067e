"""Files of captions that tenants upload: their rows, and which objects the rows share.

An upload goes to a key of its own, for its digest is known only at its end. `finish_upload` then looks for
the same content: equal files of a tenant are one object. A file stays as long as a job that has not ended
reads it.
"""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Text, cast, func, literal_column, select, true
from sqlalchemy.orm import Session

from store.database import Page
from store.errors import (
    CaptionsGoneError,
    CaptionsInUseError,
    NotFoundError,
    UploadExpiredError,
)
from store.events import IS_TOLD
from store.ids import new_id, parse_cursor, parse_id
from store.models import TERMINAL_STATUSES, CaptionFile, Job, JobEvent
from store.objects import StoredObject
from store.quotas import NO_LIMITS, Quotas, check_upload
from store.stored_bytes import count_bytes
from store.unclaimed import announce, claim, give_up, hasten

CAPTIONS_PREFIX = "captions/"
_JOBS_ASKED = 5

# As the index has it: a plan made for any parameters would not know the names in it.
file_of_job = literal_column("jobs.spec -> 'captions' ->> 'id'", Text)


def begin_upload(session: Session, *, tenant_id: str, now: datetime, quotas: Quotas = NO_LIMITS) -> str:
    """Return the key to upload a file to, which is removed again unless `finish_upload` claims it.

    `QuotaExceededError` when the tenant stores as much as it may.
    """
    check_upload(session, tenant_id, 1, quotas)
    key = f"{CAPTIONS_PREFIX}{tenant_id}/{new_id(now)}"
    announce(session, key, now=now)
    return key


def finish_upload(
    session: Session,
    *,
    tenant_id: str,
    name: str,
    stored: StoredObject,
    now: datetime,
    quotas: Quotas = NO_LIMITS,
) -> tuple[CaptionFile, bool]:
    """Write the row of a file that is wholly stored.

    Parameters
    ----------
    session
        An open transaction.
    tenant_id
        Whose file it is.
    name
        Its name, whose ending says how it is read.
    stored
        What was uploaded, to the key of `begin_upload`.
    now
        Time of its coming.
    quotas
        Limits of tenants that have none of their own.

    Returns
    -------
    tuple of CaptionFile and bool
        The file, and whether it is a new one: the same content under the same name is the file of before.

    Raises
    ------
    UploadExpiredError
        If the upload took so long that it was given up.
    QuotaExceededError
        If the tenant has no room for it.
    """
    _lock_content(session, tenant_id, stored.sha256)
    equal = select(CaptionFile).where(CaptionFile.tenant_id == tenant_id, CaptionFile.sha256 == stored.sha256)
    equals = session.scalars(equal).all()
    if equals:
        give_up(session, stored.key, now=now)
    elif not claim(session, stored.key):
        raise UploadExpiredError("The upload took too long and was given up.")
    else:
        check_upload(session, tenant_id, stored.size, quotas)
        count_bytes(session, tenant_id, stored.size)
    same = next((file for file in equals if file.name == name), None)
    if same is not None:
        return same, False
    file = CaptionFile(
        id=new_id(now),
        tenant_id=tenant_id,
        name=name,
        size=stored.size,
        sha256=stored.sha256,
        key=equals[0].key if equals else stored.key,
        created_at=now,
    )
    session.add(file)
    session.flush()
    return file, True


def give_up_upload(session: Session, key: str, *, now: datetime) -> None:
    """Let what a broken upload left be removed at once instead of a day later.

    An upload may break at the commit of `finish_upload`, which then has happened or not. If it has, the file
    stays.
    """
    hasten(session, key, now=now)


def get_caption_file(session: Session, file_id: str, *, tenant_id: str) -> CaptionFile:
    """Read a file's row; `NotFoundError` when the tenant has none of that id."""
    return _get(session, file_id, tenant_id, lock=None)


def hold_caption_file(session: Session, file_id: str, *, tenant_id: str) -> CaptionFile:
    """Read a file's row and keep it from being deleted before the transaction ends.

    For the transaction that creates a job, before it does: the file is there, and once the job is, it stays.
    """
    return _get(session, file_id, tenant_id, lock="share")


def hold_captions_of(session: Session, job: Job) -> None:
    """Keep the file that a job reads, if it reads one, for the transaction that is about to queue it again.

    `CaptionsGoneError` when it was deleted after the job had ended.
    """
    captions = job.spec["captions"]
    if captions["kind"] != "uploaded":
        return
    try:
        hold_caption_file(session, captions["id"], tenant_id=job.tenant_id)
    except NotFoundError as error:
        raise CaptionsGoneError(
            f"Caption file {captions['id']} was deleted. Upload it again, and clone the job with its new id."
        ) from error


def list_caption_files(
    session: Session, *, tenant_id: str, after: str | None = None, limit: int = 20
) -> Page[CaptionFile]:
    """List a tenant's files, the newest first; ``after`` is the cursor of the page before."""
    query = (
        select(CaptionFile)
        .where(CaptionFile.tenant_id == tenant_id)
        .order_by(CaptionFile.id.desc())
        .limit(limit + 1)
    )
    if after is not None:
        query = query.where(CaptionFile.id < parse_cursor(after))
    return Page.cut(list(session.scalars(query)), limit, lambda file: file.id)


def captions_read(session: Session, file_ids: Sequence[str]) -> dict[str, int]:
    """Count the captions of files, as the newest job of each found them; a file that none has read lacks.

    Of the jobs that a worker has taken only a file's newest are asked; the very newest may not have come to
    its captions yet.
    """
    count = (
        select(JobEvent.data["count"].as_integer())
        .where(JobEvent.job_id == Job.id, IS_TOLD, JobEvent.type == "captions")
        .order_by(JobEvent.sequence)
        .limit(1)
        .scalar_subquery()
    )
    newest = (
        select(Job.created_at, count.label("count"))
        .where(file_of_job == cast(CaptionFile.id, Text), Job.attempt > 0)
        .order_by(Job.created_at.desc())
        .limit(_JOBS_ASKED)
        .lateral()
    )
    found = (
        select(CaptionFile.id, newest.c.count)
        .join(newest, true())
        .where(CaptionFile.id.in_(file_ids), newest.c.count.is_not(None))
        .order_by(newest.c.created_at)
    )
    return {row[0]: row[1] for row in session.execute(found)} if file_ids else {}


def list_digests(session: Session) -> dict[str, str]:
    """Return the SHA-256 of every object that holds captions, by its key."""
    rows = session.execute(select(CaptionFile.key, CaptionFile.sha256).distinct())
    return {row.key: row.sha256 for row in rows}


def delete_caption_file(session: Session, file_id: str, *, tenant_id: str, now: datetime) -> None:
    """Delete a file; its object follows when no other row shares it.

    Raises
    ------
    NotFoundError
        If the tenant has none of that id.
    CaptionsInUseError
        If a job that has not ended reads it.
    """
    file = _get(session, file_id, tenant_id, lock="update")
    users = select(Job.id).where(file_of_job == file.id, Job.status.not_in(TERMINAL_STATUSES))
    user = session.scalar(users.order_by(Job.id).limit(1))
    if user is not None:
        raise CaptionsInUseError(f"Job {user} has not ended and reads these captions.")
    _lock_content(session, tenant_id, file.sha256)
    session.delete(file)
    session.flush()
    if session.scalar(select(CaptionFile.id).where(CaptionFile.key == file.key).limit(1)) is None:
        give_up(session, file.key, now=now)
        count_bytes(session, tenant_id, -file.size)


def _get(session: Session, file_id: str, tenant_id: str, *, lock: str | None) -> CaptionFile:
    kind = "caption file"
    query = select(CaptionFile).where(
        CaptionFile.id == parse_id(file_id, kind), CaptionFile.tenant_id == tenant_id
    )
    if lock is not None:
        query = query.with_for_update(read=lock == "share")
    file = session.scalars(query).one_or_none()
    if file is None:
        raise NotFoundError(f"There is no such {kind}.")
    return file


def _lock_content(session: Session, tenant_id: str, sha256: str) -> None:
    """Let one transaction at a time decide which rows share an object of this content."""
    session.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(f"{tenant_id} {sha256}", 0))))
