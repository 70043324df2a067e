"""The endpoints that users want to be told at: registered, listed, changed, removed.

Every query is for one tenant. Secrets come in encrypted and are never read here.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from store.database import Page
from store.errors import NotFoundError, TooManyWebhooksError
from store.ids import new_id, parse_cursor, parse_id
from store.models import STATUSES, Webhook, WebhookDelivery, WebhookDisabledReason

MOST_WEBHOOKS = 20
OLD_SECRET_LIFETIME = timedelta(hours=24)

EVENT_TYPES = tuple(f"job.{status}" for status in STATUSES)
"""What a webhook can be told of: the moves of a job, named by where it moved."""


def create_webhook(
    session: Session,
    *,
    tenant_id: str,
    url: str,
    description: str,
    events: Sequence[str],
    secret: str,
    now: datetime,
) -> Webhook:
    """Register an endpoint; `TooManyWebhooksError` when the tenant has as many as it may.

    Parameters
    ----------
    session
        An open transaction.
    tenant_id
        Whose jobs it is told of.
    url, description
        Where it is, and what its owner calls it.
    events
        Types that it wants; all when empty.
    secret
        Encrypted.
    now
        Time of creation.
    """
    present = session.scalar(select(func.count()).where(Webhook.tenant_id == tenant_id)) or 0
    if present >= MOST_WEBHOOKS:
        raise TooManyWebhooksError(f"There are {present} webhooks, and no more than that. Delete one first.")
    webhook = Webhook(
        id=new_id(now),
        tenant_id=tenant_id,
        url=url,
        description=description,
        events=list(events),
        secret=secret,
        created_at=now,
        updated_at=now,
    )
    session.add(webhook)
    session.flush()
    return webhook


def get_webhook(session: Session, webhook_id: str, *, tenant_id: str, for_update: bool = False) -> Webhook:
    """Read an endpoint, and lock it if asked; `NotFoundError` when the tenant has none of that id."""
    query = select(Webhook).where(
        Webhook.id == parse_id(webhook_id, "webhook"), Webhook.tenant_id == tenant_id
    )
    if for_update:
        # Not so strong a lock that moves of jobs, which write messages to the endpoint, would wait for it.
        query = query.with_for_update(key_share=True)
    webhook = session.scalars(query.execution_options(populate_existing=True)).one_or_none()
    if webhook is None:
        raise NotFoundError("There is no such webhook.")
    return webhook


def list_webhooks(session: Session, *, tenant_id: str, after: str | None, limit: int) -> Page[Webhook]:
    """List a tenant's endpoints, the newest first."""
    query = select(Webhook).where(Webhook.tenant_id == tenant_id).order_by(Webhook.id.desc()).limit(limit + 1)
    if after is not None:
        query = query.where(Webhook.id < parse_cursor(after))
    return Page.cut(list(session.scalars(query)), limit, lambda webhook: webhook.id)


def change_webhook(
    session: Session, webhook_id: str, *, tenant_id: str, changes: Mapping[str, Any], now: datetime
) -> Webhook:
    """Change an endpoint.

    Parameters
    ----------
    session
        An open transaction.
    webhook_id, tenant_id
        Which, and whose.
    changes
        Of ``url``, ``description`` and ``events`` those that are to change; and ``enabled``.
    now
        Time of the change.
    """
    webhook = get_webhook(session, webhook_id, tenant_id=tenant_id, for_update=True)
    for name in ("url", "description", "events"):
        if name in changes:
            setattr(webhook, name, changes[name])
    if changes.get("enabled") is True:
        webhook.disabled_reason = None
        webhook.failing_since = None
    elif changes.get("enabled") is False and webhook.disabled_reason is None:
        disable(session, webhook, "by_user", now=now)
    webhook.updated_at = now
    session.flush()
    return webhook


def rotate_secret(
    session: Session, webhook_id: str, *, tenant_id: str, secret: str, now: datetime
) -> Webhook:
    """Give an endpoint another secret, encrypted; the one before signs beside it for 24 hours."""
    webhook = get_webhook(session, webhook_id, tenant_id=tenant_id, for_update=True)
    webhook.previous_secret = webhook.secret
    webhook.previous_secret_expires_at = now + OLD_SECRET_LIFETIME
    webhook.secret = secret
    webhook.updated_at = now
    session.flush()
    return webhook


def delete_webhook(session: Session, webhook_id: str, *, tenant_id: str) -> None:
    """Remove an endpoint with its deliveries; `NotFoundError` when the tenant has none of that id."""
    webhook = get_webhook(session, webhook_id, tenant_id=tenant_id, for_update=True)
    session.execute(delete(Webhook).where(Webhook.id == webhook.id))


def disable(session: Session, webhook: Webhook, reason: WebhookDisabledReason, *, now: datetime) -> None:
    """Send no more to an endpoint, whose row the caller has locked; what was pending counts as failed."""
    webhook.disabled_reason = reason
    webhook.updated_at = now
    session.execute(
        update(WebhookDelivery)
        .where(WebhookDelivery.webhook_id == webhook.id, WebhookDelivery.status == "pending")
        .values(status="failed", next_attempt_at=None, claimed_until=None, finished_at=now)
        .execution_options(synchronize_session=False)
    )
