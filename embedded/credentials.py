"""Passwords and keys of one data folder: generated once, readable by the owner alone, never a default."""

import base64
import json
import secrets
from dataclasses import asdict, dataclass, field
from pathlib import Path

from embedded.files import write_private


def _password() -> str:
    return secrets.token_urlsafe(24)


@dataclass(frozen=True)
class Credentials:
    """Everything that a client of the embedded servers must know to be let in."""

    postgres_password: str = field(default_factory=_password)
    valkey_password: str = field(default_factory=_password)
    s3_access_key_id: str = field(default_factory=lambda: secrets.token_hex(10).upper())
    s3_secret_access_key: str = field(default_factory=_password)
    s3_internal_key: str = field(default_factory=lambda: secrets.token_hex(32))
    api_key_pepper: str = field(default_factory=_password)
    webhook_secret_key: str = field(
        default_factory=lambda: base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()
    )

    @classmethod
    def load_or_generate(cls, path: Path) -> "Credentials":
        """Read the folder's credentials, made on first use; what an older release did not know is added."""
        known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        credentials = cls(**known)
        if asdict(credentials) != known:
            write_private(path, json.dumps(asdict(credentials), indent=2))
        return credentials
