"""Rings the interactive queue's bell, after the transaction has committed and the client has its answer."""

import logging

from api.tenant_services import TenantServices
from store.errors import UnavailableError
from store.queue import send_generation_hint

LOGGER = logging.getLogger(__name__)


async def send(services: TenantServices) -> None:
    """Tell the workers; a broker that does not answer is logged only, for the reconciler tells them again."""
    try:
        await services.broker_threads.run(send_generation_hint, services.settings)
    except UnavailableError as error:
        LOGGER.warning("the interactive workers were not told, the reconciler will: %s", error)
