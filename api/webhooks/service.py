"""What the webhook routes do, as plain blocking functions that run in the thread pool."""

import secrets
from collections.abc import Callable
from datetime import datetime

from api.idempotency import Carried, carry_out_once, key_of
from api.pagination import ListPage
from api.tenant_services import TenantServices
from api.webhooks import schemas
from store import webhook_deliveries, webhooks
from store.database import Session, server_now
from store.idempotency import IdempotencyKey, KeptAnswer
from store.outgoing import check_url
from store.webhook_secrets import SECRET_BYTES, secret_of


def create_webhook(services: TenantServices, new: schemas.NewWebhook, idempotency_key: str | None) -> Carried:
    """Register an endpoint and show its secret."""
    url = _checked_url(services, new.url)
    secret = secret_of(secrets.token_bytes(SECRET_BYTES))
    sealed = services.secret_box.seal(secret)

    def create(session: Session, now: datetime) -> tuple[KeptAnswer, None]:
        webhook = webhooks.create_webhook(
            session,
            tenant_id=services.caller.tenant_id,
            url=url,
            description=new.description,
            events=list(dict.fromkeys(new.events)),
            secret=sealed,
            now=now,
        )
        body = schemas.WebhookWithSecret.of(webhook, secret=secret).model_dump_json()
        return KeptAnswer(201, body, f"/webhooks/{webhook.id}"), None

    return _with_secret(services, key_of(idempotency_key, "create_webhook", new.model_dump_json()), create)


def rotate_secret(services: TenantServices, webhook_id: str, idempotency_key: str | None) -> Carried:
    """Give an endpoint another secret and show it."""
    secret = secret_of(secrets.token_bytes(SECRET_BYTES))
    sealed = services.secret_box.seal(secret)

    def rotate(session: Session, now: datetime) -> tuple[KeptAnswer, None]:
        webhook = webhooks.rotate_secret(
            session, webhook_id, tenant_id=services.caller.tenant_id, secret=sealed, now=now
        )
        body = schemas.WebhookWithSecret.of(webhook, secret=secret).model_dump_json()
        return KeptAnswer(200, body), None

    return _with_secret(services, key_of(idempotency_key, "rotate_secret", webhook_id), rotate)


def _with_secret(
    services: TenantServices,
    key: IdempotencyKey | None,
    action: Callable[[Session, datetime], tuple[KeptAnswer, None]],
) -> Carried:
    """Carry out a request whose answer shows a secret: it is kept encrypted for the request's repetition."""
    carried = carry_out_once(services, key, action, seal=services.secret_box.seal)
    if not carried.is_replay:
        return carried
    kept = carried.answer
    body = services.secret_box.open(kept.body)
    return Carried(KeptAnswer(kept.status_code, body, kept.location), is_replay=True)


def _checked_url(services: TenantServices, url: str) -> str:
    return check_url(url, services.settings.outgoing_allowed_networks, field="url")


def list_webhooks(services: TenantServices, *, after: str | None, limit: int) -> ListPage[schemas.Webhook]:
    """List the endpoints, the newest first."""
    with services.transaction() as session:
        page = webhooks.list_webhooks(session, tenant_id=services.caller.tenant_id, after=after, limit=limit)
    items = [schemas.Webhook.of(webhook) for webhook in page.items]
    return ListPage(items=items, has_more=page.has_more, next=page.next)


def read_webhook(services: TenantServices, webhook_id: str) -> schemas.Webhook:
    """Read one endpoint."""
    with services.transaction() as session:
        return schemas.Webhook.of(
            webhooks.get_webhook(session, webhook_id, tenant_id=services.caller.tenant_id)
        )


def change_webhook(
    services: TenantServices, webhook_id: str, wanted: schemas.WebhookChanges
) -> schemas.Webhook:
    """Change an endpoint; a field that is null stays as it is."""
    changes = wanted.model_dump(exclude_none=True)
    if wanted.url is not None:
        changes["url"] = _checked_url(services, wanted.url)
    with services.transaction() as session:
        return schemas.Webhook.of(
            webhooks.change_webhook(
                session,
                webhook_id,
                tenant_id=services.caller.tenant_id,
                changes=changes,
                now=server_now(session),
            )
        )


def delete_webhook(services: TenantServices, webhook_id: str) -> None:
    """Remove an endpoint."""
    with services.transaction() as session:
        webhooks.delete_webhook(session, webhook_id, tenant_id=services.caller.tenant_id)


def list_deliveries(
    services: TenantServices, webhook_id: str, *, after: str | None, limit: int
) -> ListPage[schemas.Delivery]:
    """List the messages to an endpoint, the newest first."""
    with services.transaction() as session:
        page = webhook_deliveries.list_deliveries(
            session, webhook_id, tenant_id=services.caller.tenant_id, after=after, limit=limit
        )
    items = [schemas.Delivery.of(delivery) for delivery in page.items]
    return ListPage(items=items, has_more=page.has_more, next=page.next)


def redeliver(services: TenantServices, webhook_id: str, delivery_id: str) -> schemas.Delivery:
    """Send a message again."""
    with services.transaction() as session:
        delivery = webhook_deliveries.redeliver(
            session, webhook_id, delivery_id, tenant_id=services.caller.tenant_id, now=server_now(session)
        )
        return schemas.Delivery.of(delivery)
