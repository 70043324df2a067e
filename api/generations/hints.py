"""Rings the interactive queue's bell, after the transaction has committed and the client has its answer."""

import logging

from store.errors import UnavailableError
from store.queue import send_generation_hint
from store.settings import Settings

LOGGER = logging.getLogger(__name__)


def send(settings: Settings) -> None:
    """Tell the workers; a broker that is down is logged only, for the reconciler tells them again."""
    try:
        send_generation_hint(settings)
    except UnavailableError as error:
        LOGGER.warning("the interactive workers were not told, the reconciler will: %s", error)
