"""The application's services on behalf of one caller.

Handlers that touch a tenant's data get them in this form: its transactions see rows of the caller's tenant
alone (`store.tenancy`), and there is no way from here to a transaction that sees others.
"""

from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from typing import Annotated

from fastapi import Depends, Request

from api.auth import CallerDependency
from api.services import Services, ServicesDependency
from store.api_keys import Caller
from store.database import Session, transaction
from store.file_links import new_file_link

LINK_SECONDS = 3_600


class TenantServices:
    """What a request may use.

    Parameters
    ----------
    services
        Of the application.
    caller
        On whose behalf.
    address
        Under which the caller knows the API; links begin with it.
    """

    def __init__(self, services: Services, caller: Caller, *, address: str) -> None:
        self.caller = caller
        self.settings = services.settings
        self.objects = services.objects
        self.remote_objects = services.remote_objects
        self.object_store_threads = services.object_store_threads
        self.broker_threads = services.broker_threads
        self.upload_slots = services.upload_slots
        self.secret_box = services.secret_box
        self.keys = services.keys
        self.watch = services.watch
        self._engine = services.engine
        self._address = address.rstrip("/")

    def transaction(self) -> AbstractContextManager[Session]:
        """Open a transaction that sees the rows of the caller's tenant alone."""
        return transaction(self._engine, tenant_id=self.caller.tenant_id)

    def link_to_file(self, key: str, *, filename: str | None = None) -> str:
        """Make a link by which its holder may download one object for an hour, without a key.

        Parameters
        ----------
        key
            The object.
        filename
            Name under which a browser saves it.
        """
        if not self.settings.files_through_api:
            return self.objects.presigned_get(key, filename=filename, expires_seconds=LINK_SECONDS)
        link = new_file_link(
            key,
            filename=filename or key.rpartition("/")[2],
            expires_at=datetime.now(UTC) + timedelta(seconds=LINK_SECONDS),
            pepper=self.keys.pepper,
        )
        return f"{self._address}{link}"


async def _tenant_services(
    request: Request, services: ServicesDependency, caller: CallerDependency
) -> TenantServices:
    return TenantServices(services, caller, address=str(request.base_url))


TenantServicesDependency = Annotated[TenantServices, Depends(_tenant_services)]
