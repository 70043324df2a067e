"""Tables of the service.

Only `store` reads or writes them, and only `store.jobs` changes a job's status. Relations load when asked for
by name and raise otherwise, so no query is hidden. Statuses and codes are text with CHECK constraints, which
migrations can widen without a lock on the table.
"""

from datetime import datetime
from typing import Any, Literal, get_args

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    DateTime,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Text,
    UniqueConstraint,
    Uuid,
    false,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, column_property, mapped_column, relationship

Status = Literal["queued", "running", "paused", "succeeded", "failed", "cancelled"]
Phase = Literal["captions", "latents", "training", "few_step", "evaluation", "export"]
Reason = Literal[
    "bad_teacher",
    "bad_captions",
    "out_of_memory",
    "diverged",
    "max_runtime",
    "storage_full",
    "storage_unavailable",
    "internal_error",
    "trainer_crashed",
    "worker_lost",
    "worker_stopped",
    "cancelled_by_user",
    "paused_by_user",
    "resumed_by_user",
    "retried_by_user",
]
Scope = Literal["read", "write", "admin"]
WebhookDisabledReason = Literal["by_user", "gone", "failing"]
DeliveryStatus = Literal["pending", "delivered", "failed"]
GenerationStatus = Literal["queued", "running", "succeeded", "failed", "cancelled", "expired"]
GenerationReason = Literal[
    "bad_teacher",
    "out_of_memory",
    "storage_full",
    "storage_unavailable",
    "internal_error",
    "model_gone",
    "worker_lost",
    "not_watched",
    "cancelled_by_user",
]
WorkerRole = Literal["training", "interactive"]
ArtifactKind = Literal["student_archive", "student_file", "checkpoint_file", "sample", "log", "result"]

STATUSES: tuple[Status, ...] = get_args(Status)
PHASES: tuple[Phase, ...] = get_args(Phase)
REASONS: tuple[Reason, ...] = get_args(Reason)
SCOPES: tuple[Scope, ...] = get_args(Scope)
ARTIFACT_KINDS: tuple[ArtifactKind, ...] = get_args(ArtifactKind)
WEBHOOK_DISABLED_REASONS: tuple[WebhookDisabledReason, ...] = get_args(WebhookDisabledReason)
DELIVERY_STATUSES: tuple[DeliveryStatus, ...] = get_args(DeliveryStatus)
GENERATION_STATUSES: tuple[GenerationStatus, ...] = get_args(GenerationStatus)
GENERATION_REASONS: tuple[GenerationReason, ...] = get_args(GenerationReason)
QUIET_EVENTS = ("metrics", "progress")
"""Types of events that come all the time; all others are in an index of their own."""
WORKER_ROLES: tuple[WorkerRole, ...] = get_args(WorkerRole)
TERMINAL_STATUSES: frozenset[Status] = frozenset({"succeeded", "failed", "cancelled"})

DEFAULT_TENANT_ID = "00000000-0000-0000-0000-000000000001"
DEFAULT_TENANT_NAME = "default"
"""Owner of what was made without naming a tenant, as by the release that knew of none."""


def _one_of(column: str, values: tuple[str, ...]) -> CheckConstraint:
    listed = ", ".join(f"'{value}'" for value in values)
    return CheckConstraint(f"{column} IN ({listed})", name=column)


class Base(DeclarativeBase):
    """Types and constraint names shared by all tables."""

    metadata = MetaData(
        naming_convention={
            "pk": "pk_%(table_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "ix": "ix_%(table_name)s_%(column_0_name)s",
            "uq": "uq_%(table_name)s_%(column_0_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012  # SQLAlchemy reads this very attribute
        str: Text(),
        datetime: DateTime(timezone=True),
        dict[str, Any]: JSONB(none_as_null=True),
        float: Double(),
        Status: Text(),
        Phase: Text(),
        Reason: Text(),
        Scope: Text(),
        ArtifactKind: Text(),
        WorkerRole: Text(),
        WebhookDisabledReason: Text(),
        DeliveryStatus: Text(),
        GenerationStatus: Text(),
        GenerationReason: Text(),
        list[dict[str, Any]]: JSONB(none_as_null=True),
        list[str]: ARRAY(Text()),
    }


class Tenant(Base):
    """A group of users that share jobs and quotas, and see nothing of others.

    A quota of None is the installation's default. ``bytes_stored`` counts all its files;
    ``claimed_at`` is when a worker last took one of them, so that tenants take turns.
    """

    __tablename__ = "tenants"

    id: Mapped[str] = mapped_column(Uuid(as_uuid=False), primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    queued_jobs: Mapped[int | None]
    running_jobs: Mapped[int | None]
    max_bytes_stored: Mapped[int | None] = mapped_column(BigInteger)
    captions_per_job: Mapped[int | None]
    open_generations: Mapped[int | None]
    bytes_stored: Mapped[int] = mapped_column(BigInteger, default=0, server_default="0")
    claimed_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class OfTenant:
    """A row that belongs to a tenant; `store.tenancy` keeps it from the others.

    The server's default is for the release that does not name a tenant.
    """

    tenant_id: Mapped[str] = mapped_column(
        Uuid(as_uuid=False),
        ForeignKey("tenants.id"),
        default=DEFAULT_TENANT_ID,
        server_default=DEFAULT_TENANT_ID,
    )


class OfJob:
    """A row that belongs to a job, and with it to the job's tenant."""

    job_id: Mapped[str] = mapped_column(
        Uuid(as_uuid=False), ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True
    )


class ApiKey(OfTenant, Base):
    """A key that lets its bearer in; of the key itself only a digest is kept.

    ``shown`` is its beginning, by which people tell keys apart. ``created_by`` is the key that made it; None
    for one that an operator made.
    """

    __tablename__ = "api_keys"
    __table_args__ = (
        CheckConstraint("scopes <@ ARRAY['read', 'write', 'admin'] AND scopes <> '{}'", name="scopes"),
        Index("ix_api_keys_tenant_id", "tenant_id", "id"),
    )

    id: Mapped[str] = mapped_column(Uuid(as_uuid=False), primary_key=True)
    name: Mapped[str]
    shown: Mapped[str]
    digest: Mapped[str] = mapped_column(unique=True)
    scopes: Mapped[list[Scope]] = mapped_column(ARRAY(Text))
    created_by: Mapped[str | None] = mapped_column(Uuid(as_uuid=False))
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]


class Job(OfTenant, Base):
    """One distillation job.

    ``attempt`` counts how often a worker took the job and names the folder of its files; ``attempts_used``
    counts the attempts that ended in a crash since the job last got further, as its checkpoints tell;
    ``lease_token`` fences off every worker but the latest.
    ``events_position`` is the byte of the attempt's event file up to which events are recorded.
    ``runtime_s`` is how long the attempts before the present one ran, which began at ``claimed_at``; a retry
    starts the count anew. Checkpoints of attempts up to ``scratch_attempt`` are not continued from.
    ``micro_batch_size`` takes the specification's place once the memory was found too small for it.
    ``save_requested`` and ``sample_requested`` stand until the worker has handed the wish to the trainer.
    ``memory_bytes`` is what the training was counted to take when its queue was chosen by that.
    ``student`` is the specification's, without reading that: it may hold megabytes of captions. It is kept in
    ``kept_student``, which rows of the release before lack.
    ``deleted_at`` is set while the rows of a deleted job are being removed; no session sees it from then on.
    """

    __tablename__ = "jobs"
    __table_args__ = (
        _one_of("status", STATUSES),
        _one_of("phase", PHASES),
        _one_of("reason", REASONS),
        CheckConstraint("progress >= 0 AND progress <= 1", name="progress"),
        CheckConstraint("(status = 'running') = (lease_expires_at IS NOT NULL)", name="lease"),
        CheckConstraint(
            "(status IN ('succeeded', 'failed', 'cancelled')) = (finished_at IS NOT NULL)", name="finished"
        ),
        Index("ix_jobs_queued", "queue", "hinted_at", postgresql_where=text("status = 'queued'")),
        Index("ix_jobs_leases", "lease_expires_at", postgresql_where=text("status = 'running'")),
        Index(
            "ix_jobs_turn",
            "tenant_id",
            "queue",
            text("priority DESC"),
            "id",
            postgresql_where=text("status = 'queued'"),
        ),
        Index("ix_jobs_running", "tenant_id", postgresql_where=text("status = 'running'")),
        Index("ix_jobs_tenant", "tenant_id", "id"),
        Index("ix_jobs_tenant_status", "tenant_id", "status", "id"),
        Index("ix_jobs_tenant_teacher", "tenant_id", "teacher", "id"),
        Index("ix_jobs_status", "status", "id"),
        Index("ix_jobs_teacher", "teacher", "id"),
        # By time and not by id, for which a plan may walk through another index and open specifications.
        Index("ix_jobs_caption_file", text("((spec -> 'captions'::text) ->> 'id'::text)"), "created_at"),
    )

    id: Mapped[str] = mapped_column(Uuid(as_uuid=False), primary_key=True)
    status: Mapped[Status]
    phase: Mapped[Phase | None]
    reason: Mapped[Reason | None]
    message: Mapped[str | None]
    hint: Mapped[str | None]
    progress: Mapped[float] = mapped_column(default=0.0)
    eta_seconds: Mapped[float | None]
    queue: Mapped[str]
    teacher: Mapped[str]
    spec: Mapped[dict[str, Any]] = mapped_column(JSONB(none_as_null=True))
    kept_student: Mapped[Any | None] = mapped_column("student", JSONB(none_as_null=True))
    student: Mapped[Any] = column_property(func.coalesce(kept_student, spec["student"]))
    result: Mapped[dict[str, Any] | None]
    attempt: Mapped[int] = mapped_column(default=0)
    attempts_used: Mapped[int] = mapped_column(default=0)
    cancel_requested: Mapped[bool] = mapped_column(default=False)
    pause_requested: Mapped[bool] = mapped_column(default=False)
    save_requested: Mapped[bool] = mapped_column(default=False, server_default=false())
    sample_requested: Mapped[bool] = mapped_column(default=False, server_default=false())
    priority: Mapped[int] = mapped_column(default=0)
    max_runtime_s: Mapped[float | None]
    not_before: Mapped[datetime | None]
    runtime_s: Mapped[float] = mapped_column(default=0.0)
    claimed_at: Mapped[datetime | None]
    scratch_attempt: Mapped[int] = mapped_column(default=0)
    micro_batch_size: Mapped[int | None]
    memory_bytes: Mapped[int | None] = mapped_column(BigInteger)
    worker: Mapped[str | None]
    lease_token: Mapped[int] = mapped_column(BigInteger, default=0)
    lease_expires_at: Mapped[datetime | None]
    last_sequence: Mapped[int] = mapped_column(default=0)
    events_position: Mapped[int] = mapped_column(BigInteger, default=0)
    hinted_at: Mapped[datetime | None]
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    deleted_at: Mapped[datetime | None]

    transitions: Mapped[list["JobTransition"]] = relationship(
        order_by="JobTransition.sequence", lazy="raise", passive_deletes=True
    )


class JobTransition(OfJob, Base):
    """A move of a job to a status; ``sequence`` is that of the event which told of it."""

    __tablename__ = "job_transitions"
    __table_args__ = (_one_of("status", STATUSES), _one_of("reason", REASONS))

    sequence: Mapped[int] = mapped_column(Integer, primary_key=True)
    status: Mapped[Status]
    reason: Mapped[Reason | None]
    attempt: Mapped[int]
    at: Mapped[datetime]


class JobEvent(OfJob, Base):
    """Something that happened to a job; sequences start at 1 and have no gap.

    `store.events.IS_TOLD` is the condition of the index.
    """

    __tablename__ = "job_events"
    __table_args__ = (
        Index(
            "ix_job_events_told",
            "job_id",
            "sequence",
            postgresql_where=text("type NOT IN ('metrics', 'progress')"),
        ),
    )

    sequence: Mapped[int] = mapped_column(Integer, primary_key=True)
    attempt: Mapped[int]
    at: Mapped[datetime]
    type: Mapped[str]
    data: Mapped[dict[str, Any]]


class MetricPoint(OfJob, Base):
    """One value of one training metric at one step of one attempt."""

    __tablename__ = "metric_points"

    name: Mapped[str] = mapped_column(primary_key=True)
    step: Mapped[int] = mapped_column(Integer, primary_key=True)
    attempt: Mapped[int] = mapped_column(Integer, primary_key=True)
    value: Mapped[float]


class Artifact(OfJob, Base):
    """A file in the object store that belongs to an attempt; the row exists only once the upload is complete.

    ``path`` is relative to the attempt's folder. The files of one checkpoint are recorded together, so a
    checkpoint with rows is a whole one.
    """

    __tablename__ = "artifacts"
    __table_args__ = (_one_of("kind", ARTIFACT_KINDS), Index("ix_artifacts_kind", "job_id", "kind", "step"))

    attempt: Mapped[int] = mapped_column(Integer, primary_key=True)
    path: Mapped[str] = mapped_column(primary_key=True)
    kind: Mapped[ArtifactKind]
    step: Mapped[int | None]
    key: Mapped[str] = mapped_column(unique=True)
    size: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str]
    created_at: Mapped[datetime]


class DeletedJob(OfTenant, Base):
    """A deleted job whose rows and objects are still to be removed; ``swept_at`` is when they first were."""

    __tablename__ = "deleted_jobs"

    job_id: Mapped[str] = mapped_column(Uuid(as_uuid=False), primary_key=True)
    deleted_at: Mapped[datetime]
    swept_at: Mapped[datetime | None]


class IdempotencyRecord(OfTenant, Base):
    """A key under which a request was carried out, with a fingerprint of it and the answer that it got.

    Keys of different tenants have nothing to do with each other. Records of the release before have no
    answer: theirs is made anew from the job.
    """

    __tablename__ = "idempotency_records"

    tenant_id: Mapped[str] = mapped_column(
        Uuid(as_uuid=False),
        ForeignKey("tenants.id"),
        primary_key=True,
        default=DEFAULT_TENANT_ID,
        server_default=DEFAULT_TENANT_ID,
    )
    key: Mapped[str] = mapped_column(primary_key=True)
    fingerprint: Mapped[str]
    job_id: Mapped[str | None] = mapped_column(
        Uuid(as_uuid=False),
        # Checked at commit: the record comes before its job, so that a second request waits for it.
        ForeignKey("jobs.id", ondelete="SET NULL", deferrable=True, initially="DEFERRED"),
        index=True,
    )
    status_code: Mapped[int | None]
    answer: Mapped[str | None]
    location: Mapped[str | None]
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime] = mapped_column(index=True)


class CaptionFile(OfTenant, Base):
    """A file of captions that somebody uploaded.

    The object under ``key`` is complete and has this ``sha256``. Rows of one tenant with the same content
    share one object.
    """

    __tablename__ = "caption_files"
    __table_args__ = (
        UniqueConstraint("tenant_id", "sha256", "name"),
        Index("ix_caption_files_tenant_id", "tenant_id", "id"),
        Index("ix_caption_files_key", "key"),
    )

    id: Mapped[str] = mapped_column(Uuid(as_uuid=False), primary_key=True)
    name: Mapped[str]
    size: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str]
    key: Mapped[str]
    created_at: Mapped[datetime]


class UnclaimedObject(Base):
    """A key of the object store that no other row speaks of: an upload under way, or what is to be removed.

    ``remove_at`` is when the sweeper may remove it. Once ``removing`` is set it will, and an upload to that
    key can no longer be completed.
    """

    __tablename__ = "unclaimed_objects"

    key: Mapped[str] = mapped_column(primary_key=True)
    remove_at: Mapped[datetime] = mapped_column(index=True)
    removing: Mapped[bool] = mapped_column(default=False)


class Worker(Base):
    """A worker as it tells of itself; `store.workers` says what for.

    ``memory_bytes`` is that of one device. ``beat_at`` is its last sign of life.
    """

    __tablename__ = "workers"
    __table_args__ = (_one_of("role", WORKER_ROLES),)

    name: Mapped[str] = mapped_column(primary_key=True)
    role: Mapped[WorkerRole]
    host: Mapped[str]
    queue: Mapped[str]
    release: Mapped[str]
    device: Mapped[str]
    device_count: Mapped[int]
    memory_bytes: Mapped[int | None] = mapped_column(BigInteger)
    started_at: Mapped[datetime]
    beat_at: Mapped[datetime]


class Webhook(OfTenant, Base):
    """An endpoint of a user's that is told of jobs' moves.

    ``secret`` and ``previous_secret`` are encrypted; the latter signs beside the former until it expires.
    ``events`` are the types that the endpoint wants, all of them when it names none. ``disabled_reason`` is
    NULL while it is enabled; ``failing_since`` is the first failure after the last success.
    """

    __tablename__ = "webhooks"
    __table_args__ = (
        _one_of("disabled_reason", WEBHOOK_DISABLED_REASONS),
        Index("ix_webhooks_tenant", "tenant_id", "id"),
    )

    id: Mapped[str] = mapped_column(Uuid(as_uuid=False), primary_key=True)
    url: Mapped[str]
    description: Mapped[str]
    events: Mapped[list[str]]
    secret: Mapped[str]
    previous_secret: Mapped[str | None]
    previous_secret_expires_at: Mapped[datetime | None]
    disabled_reason: Mapped[WebhookDisabledReason | None]
    failing_since: Mapped[datetime | None]
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]


class WebhookDelivery(OfTenant, Base):
    """A message to one endpoint, written in the transaction of the move that it tells of.

    ``attempts`` counts how often it was sent and tells the sender that has it from one that was given up;
    ``retries`` is how far it has come in the schedule. It is due at ``next_attempt_at`` unless a sender has
    it, until ``claimed_until``. The job may be deleted long before its messages.
    """

    __tablename__ = "webhook_deliveries"
    __table_args__ = (
        _one_of("status", DELIVERY_STATUSES),
        CheckConstraint("(status = 'pending') = (next_attempt_at IS NOT NULL)", name="due"),
        Index("ix_webhook_deliveries_webhook", "webhook_id", "id"),
        Index(
            "ix_webhook_deliveries_due",
            "webhook_id",
            "next_attempt_at",
            postgresql_where=text("status = 'pending'"),
        ),
        Index("ix_webhook_deliveries_created_at", "created_at"),
    )

    id: Mapped[str] = mapped_column(Uuid(as_uuid=False), primary_key=True)
    webhook_id: Mapped[str] = mapped_column(
        Uuid(as_uuid=False), ForeignKey("webhooks.id", ondelete="CASCADE")
    )
    job_id: Mapped[str] = mapped_column(Uuid(as_uuid=False))
    event: Mapped[str]
    payload: Mapped[dict[str, Any]]
    status: Mapped[DeliveryStatus]
    attempts: Mapped[int] = mapped_column(default=0)
    retries: Mapped[int] = mapped_column(default=0)
    next_attempt_at: Mapped[datetime | None]
    claimed_until: Mapped[datetime | None]
    created_at: Mapped[datetime]
    finished_at: Mapped[datetime | None]

    log: Mapped[list["WebhookAttempt"]] = relationship(
        order_by="WebhookAttempt.number", lazy="raise", passive_deletes=True
    )


class WebhookAttempt(Base):
    """One sending of a delivery, and what came of it."""

    __tablename__ = "webhook_attempts"

    delivery_id: Mapped[str] = mapped_column(
        Uuid(as_uuid=False), ForeignKey("webhook_deliveries.id", ondelete="CASCADE"), primary_key=True
    )
    number: Mapped[int] = mapped_column(Integer, primary_key=True)
    at: Mapped[datetime]
    latency_ms: Mapped[int]
    status_code: Mapped[int | None]
    answer_excerpt: Mapped[str | None]
    error: Mapped[str | None]


class Generation(OfTenant, Base):
    """Pictures of one prompt by one or two models, asked for by somebody who waits for them.

    ``drawings`` says which model draws how, and gets the picture of each as it is drawn. ``watched_until`` is
    how long somebody is taken to be waiting; later than that it is not drawn. ``version`` grows with every
    change that a reader can see. The job may be deleted before it.
    """

    __tablename__ = "generations"
    __table_args__ = (
        _one_of("status", GENERATION_STATUSES),
        _one_of("reason", GENERATION_REASONS),
        CheckConstraint("(status = 'running') = (lease_expires_at IS NOT NULL)", name="lease"),
        CheckConstraint("(status IN ('queued', 'running')) = (finished_at IS NULL)", name="finished"),
        Index(
            "ix_generations_open",
            "tenant_id",
            "id",
            postgresql_where=text("status IN ('queued', 'running')"),
        ),
        Index("ix_generations_tenant_id", "tenant_id", "started_at"),
        Index("ix_generations_finished_at", "finished_at"),
    )

    id: Mapped[str] = mapped_column(Uuid(as_uuid=False), primary_key=True)
    job_id: Mapped[str] = mapped_column(Uuid(as_uuid=False))
    status: Mapped[GenerationStatus]
    reason: Mapped[GenerationReason | None]
    message: Mapped[str | None]
    hint: Mapped[str | None]
    prompt: Mapped[str]
    seed: Mapped[int] = mapped_column(BigInteger)
    drawings: Mapped[list[dict[str, Any]]]
    version: Mapped[int] = mapped_column(default=1)
    watched_until: Mapped[datetime]
    worker: Mapped[str | None]
    lease_token: Mapped[int] = mapped_column(BigInteger, default=0)
    lease_expires_at: Mapped[datetime | None]
    created_at: Mapped[datetime]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
