"""The secrets that webhooks are signed with: made, kept encrypted, and used for signing.

A secret is shown once, in the answer that creates it. In the database it is encrypted under a key that the
database does not hold, so that a copy of the database lets nobody forge a message. Answers that hold a secret
and are kept for repeated requests are encrypted in the same way.

References
----------
Standard Webhooks, version 1.0.0: https://www.standardwebhooks.com
"""

import base64
from collections.abc import Sequence
from datetime import datetime

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from standardwebhooks import Webhook as Signer

from store.errors import WebhooksNotConfiguredError
from store.settings import Settings

SECRET_PREFIX = "whsec_"  # noqa: S105  # what every secret begins with
SECRET_BYTES = 32


def secret_of(random_bytes: bytes) -> str:
    """Write random bytes as a secret of Standard Webhooks."""
    return SECRET_PREFIX + base64.b64encode(random_bytes).decode()


class SecretBox:
    """Encrypts and decrypts under the keys of the settings.

    Parameters
    ----------
    settings
        Without ``webhook_secret_keys`` every use is a `WebhooksNotConfiguredError`.
    """

    def __init__(self, settings: Settings) -> None:
        keys = settings.webhook_secret_keys
        self._fernet = (
            None
            if keys is None
            else MultiFernet([Fernet(key.strip()) for key in keys.get_secret_value().split(",")])
        )

    @property
    def can_open(self) -> bool:
        """Whether there is a key."""
        return self._fernet is not None

    def seal(self, text: str) -> str:
        """Encrypt a text under the first key."""
        return self._keys().encrypt(text.encode()).decode()

    def open(self, sealed: str) -> str:
        """Decrypt a text under whichever key it was encrypted with."""
        try:
            return self._keys().decrypt(sealed.encode()).decode()
        except InvalidToken:
            raise WebhooksNotConfiguredError(
                "A webhook's secret was encrypted under a key that WEBHOOK_SECRET_KEYS does not list."
            ) from None

    def _keys(self) -> MultiFernet:
        if self._fernet is None:
            raise WebhooksNotConfiguredError(
                "This installation keeps no webhooks: its operator has not set WEBHOOK_SECRET_KEYS."
            )
        return self._fernet


def sign(secrets: Sequence[str], *, message_id: str, at: datetime, content: bytes) -> dict[str, str]:
    """Sign a message and return its headers.

    Parameters
    ----------
    secrets
        Each gives a signature; the receiver accepts the message if it knows one of them.
    message_id
        The same whenever the message is sent again.
    at
        When it is sent; receivers refuse old messages.
    content
        The body.
    """
    signatures = [Signer(secret).sign(message_id, at, content.decode()) for secret in secrets]
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": " ".join(signatures),
    }
