"""Messages to webhooks: an outbox in the database, and the log of what was sent.

A message is written in the transaction of the move that it tells of, so none is lost and none tells of what
did not happen. A sender claims it for a while, sends it with no transaction open, and records what came of
it; one that dies in between leaves it to the next. A receiver may therefore get a message twice, under the
same id, and messages out of order: each carries the number of its event within the job.

Time and chance come in as arguments.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import delete, func, or_, select, true
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session, selectinload

from store.database import Page
from store.errors import NotFoundError, WebhookDisabledError
from store.ids import new_id, parse_cursor, parse_id
from store.models import Job, Webhook, WebhookAttempt, WebhookDelivery
from store.webhooks import disable, get_webhook

RETRY_PAUSES = tuple(timedelta(seconds=seconds) for seconds in (5, 300, 1_800, 7_200, 18_000, 36_000, 36_000))
"""Between one attempt and the next: from seconds to ten hours, 28 hours all together."""

JITTER = 0.2
"""By this share a pause is shorter or longer, so that a receiver that comes back is not overrun."""

FAILING_IS_GIVEN_UP = timedelta(days=5)
"""An endpoint that has answered nothing well for so long, and fails again, is disabled."""

KEPT = timedelta(days=30)
CLAIM = timedelta(minutes=5)
"""Far longer than a sender may take; then the message is somebody else's."""

AT_ONCE_TO_ONE = 2
"""A slow endpoint holds up this many senders, about, and not those of the others."""

HTTP_GONE = 410
_FORGOTTEN_AT_ONCE = 1_000


@dataclass(frozen=True)
class ClaimedDelivery:
    """A message to send, and the encrypted secrets to sign it with.

    Attributes
    ----------
    attempt
        Number of the attempt, which the record of its outcome must name.
    """

    id: str
    attempt: int
    url: str
    payload: Mapping[str, Any]
    secrets: tuple[str, ...]


@dataclass(frozen=True)
class AttemptOutcome:
    """What came of sending a message.

    Attributes
    ----------
    at
        When it was sent.
    latency_ms
        How long the answer took.
    status_code, answer_excerpt
        The answer; None when there was none.
    error
        Why there was no answer.
    """

    at: datetime
    latency_ms: int
    status_code: int | None = None
    answer_excerpt: str | None = None
    error: str | None = None

    @property
    def is_good(self) -> bool:
        """Whether the receiver took the message."""
        return self.status_code is not None and 200 <= self.status_code < 300


def enqueue_deliveries(session: Session, job: Job, told: Mapping[str, Any], *, now: datetime) -> None:
    """Write a message to each endpoint of the job's tenant that wants to know of a job's move.

    Parameters
    ----------
    session
        The transaction of the move.
    job
        The job after the move.
    told
        The data of the event that tells of it.
    now
        Time of the move.
    """
    event = f"job.{job.status}"
    webhooks = session.scalars(
        select(Webhook.id)
        .where(Webhook.tenant_id == job.tenant_id, Webhook.disabled_reason.is_(None))
        .where(or_(func.cardinality(Webhook.events) == 0, Webhook.events.contains([event])))
        .order_by(Webhook.id)
        # Until the messages are written nobody may remove their endpoint, or the move itself would fail.
        .with_for_update(read=True, key_share=True)
    ).all()
    if not webhooks:
        return
    data = {"job_id": job.id, "sequence": job.last_sequence, "teacher": job.teacher, **told}
    payload = {"type": event, "timestamp": now.isoformat(), "data": data}
    session.execute(
        insert(WebhookDelivery),
        [
            {
                "id": new_id(now),
                "tenant_id": job.tenant_id,
                "webhook_id": webhook_id,
                "job_id": job.id,
                "event": event,
                "payload": payload,
                "status": "pending",
                "next_attempt_at": now,
                "created_at": now,
            }
            for webhook_id in webhooks
        ],
    )


def claim_deliveries(session: Session, *, limit: int, now: datetime) -> list[ClaimedDelivery]:
    """Take messages that are due, of each endpoint a few at most.

    Parameters
    ----------
    session
        An open transaction; the messages are sent after it commits.
    limit
        Most messages to take.
    now
        Time of the claim.
    """
    is_free = or_(WebhookDelivery.claimed_until.is_(None), WebhookDelivery.claimed_until <= now)
    is_due = (WebhookDelivery.status == "pending") & (WebhookDelivery.next_attempt_at <= now) & is_free
    under_way = (
        select(func.count())
        .where(
            WebhookDelivery.webhook_id == Webhook.id,
            WebhookDelivery.status == "pending",
            WebhookDelivery.claimed_until > now,
        )
        .correlate(Webhook)
        .scalar_subquery()
    )
    first_due = (
        select(WebhookDelivery.id, WebhookDelivery.next_attempt_at)
        .where(WebhookDelivery.webhook_id == Webhook.id, is_due)
        .order_by(WebhookDelivery.next_attempt_at)
        .limit(AT_ONCE_TO_ONE)
        .correlate(Webhook)
        .lateral()
    )
    picked = (
        select(first_due.c.id)
        .select_from(Webhook)
        .join(first_due, true())
        .where(Webhook.disabled_reason.is_(None), under_way < AT_ONCE_TO_ONE)
        .order_by(first_due.c.next_attempt_at)
        .limit(limit)
    )
    deliveries = session.scalars(
        select(WebhookDelivery)
        .where(WebhookDelivery.id.in_(picked), is_due)
        .order_by(WebhookDelivery.id)
        .with_for_update(skip_locked=True)
    ).all()
    claimed = []
    for delivery in deliveries:
        delivery.attempts += 1
        delivery.claimed_until = now + CLAIM
        webhook = session.get_one(Webhook, delivery.webhook_id)
        claimed.append(
            ClaimedDelivery(
                delivery.id, delivery.attempts, webhook.url, delivery.payload, _secrets(webhook, now)
            )
        )
    return claimed


def _secrets(webhook: Webhook, now: datetime) -> tuple[str, ...]:
    expires = webhook.previous_secret_expires_at
    if webhook.previous_secret is None or expires is None or expires <= now:
        return (webhook.secret,)
    return (webhook.secret, webhook.previous_secret)


def record_attempt(
    session: Session,
    *,
    delivery_id: str,
    attempt: int,
    outcome: AttemptOutcome,
    chance: float,
    now: datetime,
) -> None:
    """Write what came of an attempt, and when the next one is due.

    Parameters
    ----------
    session
        An open transaction.
    delivery_id, attempt
        As they were claimed. Nothing is written when somebody else has claimed the message since.
    outcome
        What came of it.
    chance
        From 0 to 1: where in its range the pause before the next attempt lies.
    now
        Time of the record.
    """
    # The endpoint is locked first, as by whoever removes it.
    webhook = session.scalars(
        select(Webhook)
        .join(WebhookDelivery, WebhookDelivery.webhook_id == Webhook.id)
        .where(WebhookDelivery.id == delivery_id)
        .with_for_update(of=Webhook, key_share=True)
        .execution_options(populate_existing=True)
    ).one_or_none()
    delivery = session.scalars(
        select(WebhookDelivery)
        .where(WebhookDelivery.id == delivery_id, WebhookDelivery.attempts == attempt)
        .with_for_update()
    ).one_or_none()
    if webhook is None or delivery is None:
        return
    session.add(
        WebhookAttempt(
            delivery_id=delivery_id,
            number=attempt,
            at=outcome.at,
            latency_ms=outcome.latency_ms,
            status_code=outcome.status_code,
            answer_excerpt=outcome.answer_excerpt,
            error=outcome.error,
        )
    )
    delivery.claimed_until = None
    if outcome.is_good:
        webhook.failing_since = None
        _finish(delivery, "delivered", now)
        return
    if delivery.status != "pending":  # the endpoint was disabled meanwhile
        return
    webhook.failing_since = webhook.failing_since or now
    if delivery.retries < len(RETRY_PAUSES):
        delivery.next_attempt_at = now + RETRY_PAUSES[delivery.retries] * (1 + JITTER * (2 * chance - 1))
        delivery.retries += 1
    else:
        _finish(delivery, "failed", now)
    session.flush()
    if outcome.status_code == HTTP_GONE:
        disable(session, webhook, "gone", now=now)
    elif now - webhook.failing_since >= FAILING_IS_GIVEN_UP:
        disable(session, webhook, "failing", now=now)


def _finish(delivery: WebhookDelivery, status: Any, now: datetime) -> None:
    delivery.status = status
    delivery.next_attempt_at = None
    delivery.finished_at = now


def list_deliveries(
    session: Session, webhook_id: str, *, tenant_id: str, after: str | None, limit: int
) -> Page[WebhookDelivery]:
    """List the messages to an endpoint with their attempts, the newest first."""
    webhook = get_webhook(session, webhook_id, tenant_id=tenant_id)
    query = (
        select(WebhookDelivery)
        .where(WebhookDelivery.webhook_id == webhook.id)
        .options(selectinload(WebhookDelivery.log))
        .order_by(WebhookDelivery.id.desc())
        .limit(limit + 1)
    )
    if after is not None:
        query = query.where(WebhookDelivery.id < parse_cursor(after))
    return Page.cut(list(session.scalars(query)), limit, lambda delivery: delivery.id)


def redeliver(
    session: Session, webhook_id: str, delivery_id: str, *, tenant_id: str, now: datetime
) -> WebhookDelivery:
    """Send a message again, as if it had never been sent; its id and its log stay.

    Asking twice is harmless. `WebhookDisabledError` while the endpoint gets nothing.
    """
    webhook = get_webhook(session, webhook_id, tenant_id=tenant_id, for_update=True)
    delivery = session.scalars(
        select(WebhookDelivery)
        .where(
            WebhookDelivery.id == parse_id(delivery_id, "delivery"), WebhookDelivery.webhook_id == webhook.id
        )
        .options(selectinload(WebhookDelivery.log))
        .with_for_update(of=WebhookDelivery)
        .execution_options(populate_existing=True)
    ).one_or_none()
    if delivery is None:
        raise NotFoundError("There is no such delivery.")
    if webhook.disabled_reason is not None:
        raise WebhookDisabledError("The webhook is disabled. Enable it first, by PATCH with enabled: true.")
    delivery.status = "pending"
    delivery.retries = 0
    delivery.next_attempt_at = now
    delivery.finished_at = None
    session.flush()
    return delivery


def forget_old_deliveries(session: Session, *, now: datetime) -> int:
    """Delete messages of more than 30 days ago, some at a time, and say how many there were."""
    old = (
        select(WebhookDelivery.id)
        .where(WebhookDelivery.created_at < now - KEPT)
        .order_by(WebhookDelivery.created_at)
        .limit(_FORGOTTEN_AT_ONCE)
    )
    deleted = delete(WebhookDelivery).where(WebhookDelivery.id.in_(old)).returning(WebhookDelivery.id)
    return len(session.scalars(deleted.execution_options(synchronize_session=False)).all())
