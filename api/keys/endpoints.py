"""Routes of API keys; all need the scope ``admin``."""

from typing import Annotated

from fastapi import APIRouter, Path, Query, Response

from api.keys import schemas, service
from api.openapi import problems
from api.pagination import Limit, ListPage
from api.request_headers import RequireJson
from api.tenant_services import TenantServicesDependency

router = APIRouter(prefix="/keys", tags=["keys"])


@router.post(
    "",
    status_code=201,
    summary="Make a key",
    response_description="The key, which is shown only here.",
    dependencies=[RequireJson],
    responses=problems(400, 413, 415, 422),
)
def create_key(services: TenantServicesDependency, wanted: schemas.NewKey) -> schemas.CreatedKey:
    """Make a key of the caller's tenant.

    A key can be given no more scopes than its maker has. A request that is sent twice makes two keys: an
    answer that got lost cannot be had again, so revoke its key and make another.
    """
    return service.create_key(services, wanted)


@router.get("", summary="List keys", responses=problems(422))
def list_keys(
    services: TenantServicesDependency,
    after: Annotated[
        str | None, Query(max_length=100, description="Cursor: the `next` of the page before.")
    ] = None,
    limit: Limit = 20,
) -> ListPage[schemas.Key]:
    """List the keys of the caller's tenant, revoked ones too, the newest first."""
    return service.list_keys(services, after=after, limit=limit)


@router.delete(
    "/{key_id}",
    status_code=204,
    response_class=Response,
    summary="Revoke a key",
    responses=problems(404, 422),
)
def revoke_key(
    services: TenantServicesDependency,
    key_id: Annotated[
        str, Path(description="Id of the key, not the key itself.", examples=[schemas.KEY_EXAMPLE["id"]])
    ],
) -> None:
    """Revoke a key for good; it stays in the list. Revoking it twice is harmless.

    Other processes of the service may let it in for a few seconds more (`KEY_CACHE_SECONDS`).
    """
    service.revoke_key(services, key_id)
