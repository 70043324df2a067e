"""What the key routes do, as plain blocking functions that run in the thread pool."""

from api.keys import schemas
from api.pagination import ListPage
from api.tenant_services import TenantServices
from store import api_keys
from store.database import server_now
from store.errors import InvalidInputError, MissingScopeError
from store.scopes import missing_to_give


def create_key(services: TenantServices, wanted: schemas.NewKey) -> schemas.CreatedKey:
    """Make a key that allows no more than the caller's own."""
    caller = services.caller
    missing = missing_to_give(caller.scopes, wanted.scopes)
    if missing:
        raise MissingScopeError(
            f"A key can be given no more than its maker has, which is {', '.join(sorted(caller.scopes))}.",
            scope=missing[0],
            field="scopes",
        )
    with services.transaction() as session:
        now = server_now(session)
        if wanted.expires_at is not None and wanted.expires_at <= now:
            raise InvalidInputError(
                "The key would have expired already.",
                field="expires_at",
                allowed=[f"after {now:%Y-%m-%dT%H:%M:%SZ}"],
            )
        if wanted.expires_at is not None and wanted.expires_at - now > api_keys.FARTHEST_EXPIRY:
            raise InvalidInputError(
                f"The key would be good until {wanted.expires_at:%Y-%m-%d}.",
                field="expires_at",
                allowed=[f"until {now + api_keys.FARTHEST_EXPIRY:%Y-%m-%d}", "null"],
            )
        created = api_keys.create_key(
            session,
            name=wanted.name,
            scopes=wanted.scopes,
            pepper=services.keys.pepper,
            now=now,
            expires_at=wanted.expires_at,
            created_by=caller.key_id,
        )
    shown = schemas.Key.model_validate(created.row)
    return schemas.CreatedKey(key=created.key, **shown.model_dump())


def list_keys(services: TenantServices, *, after: str | None, limit: int) -> ListPage[schemas.Key]:
    """List the tenant's keys, the newest first."""
    with services.transaction() as session:
        page = api_keys.list_keys(session, after=after, limit=limit)
    items = [schemas.Key.model_validate(row) for row in page.items]
    return ListPage(items=items, has_more=page.has_more, next=page.next)


def revoke_key(services: TenantServices, key_id: str) -> None:
    """Revoke a key of the tenant, for this process at once."""
    with services.transaction() as session:
        revoked = api_keys.revoke_key(session, key_id=key_id, now=server_now(session))
    services.keys.forget(revoked)
