"""The application's services on behalf of one caller.

Handlers that touch a tenant's data get them in this form: its transactions see rows of the caller's tenant
alone (`store.tenancy`), and there is no way from here to a transaction that sees others.
"""

from contextlib import AbstractContextManager
from typing import Annotated

from fastapi import Depends

from api.auth import CallerDependency
from api.services import Services, ServicesDependency
from store.api_keys import Caller
from store.database import Session, transaction


class TenantServices:
    """What a request may use.

    Parameters
    ----------
    services
        Of the application.
    caller
        On whose behalf.
    """

    def __init__(self, services: Services, caller: Caller) -> None:
        self.caller = caller
        self.settings = services.settings
        self.objects = services.objects
        self.remote_objects = services.remote_objects
        self.upload_slots = services.upload_slots
        self.secret_box = services.secret_box
        self.keys = services.keys
        self.watch = services.watch
        self._engine = services.engine

    def transaction(self) -> AbstractContextManager[Session]:
        """Open a transaction that sees the rows of the caller's tenant alone."""
        return transaction(self._engine, tenant_id=self.caller.tenant_id)


async def _tenant_services(services: ServicesDependency, caller: CallerDependency) -> TenantServices:
    return TenantServices(services, caller)


TenantServicesDependency = Annotated[TenantServices, Depends(_tenant_services)]
