"""Routes of webhooks."""

from typing import Annotated

from fastapi import APIRouter, Path, Query, Response

from api.openapi import created, problems, repeatable
from api.pagination import Limit, ListPage
from api.request_headers import IdempotencyKeyHeader, RequireJson
from api.tenant_services import TenantServicesDependency
from api.webhooks import schemas, service

router = APIRouter(prefix="/webhooks", tags=["webhooks"])

WebhookId = Annotated[str, Path(description="Id of a webhook.", examples=[schemas.WEBHOOK_EXAMPLE["id"]])]
DeliveryId = Annotated[
    str, Path(description="Id of a delivery.", examples=["019ab2c4-8a10-7d20-8a3e-5d3f1c0b7e11"])
]
Cursor = Annotated[str | None, Query(max_length=100, description="Cursor: the `next` of the page before.")]


@router.post(
    "",
    status_code=201,
    summary="Register a webhook",
    response_description="The webhook, with its secret.",
    dependencies=[RequireJson],
    response_model=schemas.WebhookWithSecret,
    responses={**created("Path of the webhook."), **problems(400, 409, 413, 415, 422, 503)},
)
def create_webhook(
    services: TenantServicesDependency, new: schemas.NewWebhook, idempotency_key: IdempotencyKeyHeader
) -> Response:
    """Register an endpoint to be told of jobs' moves, by the rules of Standard Webhooks.

    The answer shows the secret, and nothing shows it again. A message is a POST that any 2xx answer within 15
    seconds takes. Otherwise it is sent again after 5 s, 5 min, 30 min, 2 h, 5 h, 10 h and 10 h, each time
    about. An endpoint that answers 410, or that takes nothing for five days, is disabled. Redirects are not
    followed.
    """
    return service.create_webhook(services, new, idempotency_key).response()


@router.get("", summary="List webhooks", responses=problems(422, 503))
def list_webhooks(
    services: TenantServicesDependency, after: Cursor = None, limit: Limit = 20
) -> ListPage[schemas.Webhook]:
    """List the webhooks, the newest first."""
    return service.list_webhooks(services, after=after, limit=limit)


@router.get("/{webhook_id}", summary="Read a webhook", responses=problems(404, 422, 503))
def read_webhook(services: TenantServicesDependency, webhook_id: WebhookId) -> schemas.Webhook:
    """Read a webhook, without its secret."""
    return service.read_webhook(services, webhook_id)


@router.patch(
    "/{webhook_id}",
    summary="Change a webhook",
    dependencies=[RequireJson],
    responses=problems(400, 404, 413, 415, 422, 503),
)
def change_webhook(
    services: TenantServicesDependency, webhook_id: WebhookId, changes: schemas.WebhookChanges
) -> schemas.Webhook:
    """Change where a webhook goes and what it is told of, disable it, or enable it again."""
    return service.change_webhook(services, webhook_id, changes)


@router.delete(
    "/{webhook_id}",
    status_code=204,
    response_class=Response,
    summary="Delete a webhook",
    responses=problems(404, 422, 503),
)
def delete_webhook(services: TenantServicesDependency, webhook_id: WebhookId) -> None:
    """Delete a webhook with its deliveries."""
    service.delete_webhook(services, webhook_id)


@router.post(
    "/{webhook_id}/rotate-secret",
    summary="Rotate a webhook's secret",
    response_description="The webhook, with its new secret.",
    response_model=schemas.WebhookWithSecret,
    responses={**repeatable(), **problems(400, 404, 409, 422, 503)},
)
def rotate_webhook_secret(
    services: TenantServicesDependency, webhook_id: WebhookId, idempotency_key: IdempotencyKeyHeader
) -> Response:
    """Make another secret. For 24 hours messages are signed with both, then with the new one alone."""
    return service.rotate_secret(services, webhook_id, idempotency_key).response()


@router.get("/{webhook_id}/deliveries", summary="List deliveries", responses=problems(404, 422, 503))
def list_deliveries(
    services: TenantServicesDependency, webhook_id: WebhookId, after: Cursor = None, limit: Limit = 20
) -> ListPage[schemas.Delivery]:
    """List the messages to a webhook of the last 30 days, the newest first, each with its attempts."""
    return service.list_deliveries(services, webhook_id, after=after, limit=limit)


@router.post(
    "/{webhook_id}/deliveries/{delivery_id}/redeliver",
    summary="Send a message again",
    responses=problems(404, 409, 422, 503),
)
def redeliver_message(
    services: TenantServicesDependency, webhook_id: WebhookId, delivery_id: DeliveryId
) -> schemas.Delivery:
    """Send a message once more, whether it was taken or not, under the same id. Asking twice is harmless."""
    return service.redeliver(services, webhook_id, delivery_id)
