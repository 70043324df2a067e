"""Settings of the service, read from the environment.

Every process of the service reads the same names, so one environment configures the whole stack. Secrets are
never part of a ``repr``.
"""

import base64
import os
from functools import lru_cache
from pathlib import Path
from typing import Annotated

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from store.addresses import Network, parse_networks

_REPOSITORY = Path(__file__).resolve().parent.parent


def normalise_database_url(url: str) -> str:
    """Name the psycopg driver in a Postgres URL that names none.

    Parameters
    ----------
    url
        ``postgresql://``, ``postgres://`` or ``postgresql+psycopg://`` URL.

    Returns
    -------
    str
        The same URL with the scheme ``postgresql+psycopg``.
    """
    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in {"postgres", "postgresql", "postgresql+psycopg"}:
        raise ValueError("the database URL must begin with postgresql://")
    return f"postgresql+psycopg://{rest}"


def _bundled_teachers() -> list[Path]:
    """Folders of the repository whose sub-folder ``weights`` is a teacher."""
    return sorted(weights.parent for weights in (_REPOSITORY / "teachers").glob("*/weights"))


class Settings(BaseSettings):
    """Where the servers are, where files go, and the service's time limits.

    Field names in upper case are the names of the environment variables.
    """

    model_config = SettingsConfigDict(frozen=True, extra="ignore")

    database_url: str = Field(repr=False, description="Postgres.")
    redis_url: str = Field(repr=False, description="Redis or Valkey.")
    s3_endpoint_url: str | None = Field(default=None, description="S3 server; AWS itself when empty.")
    s3_public_endpoint_url: str | None = Field(
        default=None, description="Address that clients use for S3, when it differs from ours."
    )
    s3_bucket: str = "condenser"
    s3_region: str = "us-east-1"
    s3_access_key_id: str | None = None
    s3_secret_access_key: SecretStr | None = None
    data_dir: Path = Path(".condenser")
    teachers_dirs: Annotated[list[Path], NoDecode] = Field(default=[], validate_default=True)
    worker_queue: str = "cpu"
    lease_seconds: float = Field(default=60, gt=0, description="A job is taken back this long after a beat.")
    heartbeat_seconds: float = Field(default=10, gt=0)
    cancel_grace_seconds: float = Field(
        default=120, gt=0, description="What a trainer has to write a checkpoint: from SIGTERM to SIGKILL."
    )
    upload_patience_seconds: float = Field(default=3_600, gt=0, description="Retries while S3 is away.")
    max_attempts: int = Field(default=3, ge=1)
    cache_max_bytes: int = Field(
        default=100 * 2**30, ge=0, description="A worker's caches; what was not used for longest goes first."
    )
    reconcile_seconds: float = Field(default=10, gt=0)
    sweep_seconds: float = Field(default=3_600, gt=0, description="Between two looks for broken uploads.")
    public_hosts: Annotated[list[str], NoDecode] = Field(
        default=[],
        description="Names by which browsers and clients reach the API, separated by commas, beside those of "
        "loopback; * for any.",
    )
    captions_dir: Path | None = Field(
        default=None, description="Folder that caption files must lie in; DATA_DIR/captions when empty."
    )
    max_body_bytes: int = Field(default=4 * 2**20, ge=1, description="Largest request body.")
    watch_seconds: float = Field(default=0.5, gt=0, description="A watched job's change is seen this soon.")
    stream_seconds: float = Field(default=600, gt=0, description="Longest life of an event stream.")
    ping_seconds: float = Field(default=15, gt=0, description="Pause after which a silent stream pings.")

    outgoing_allowed_networks: Annotated[list[Network], NoDecode] = Field(
        default=[],
        description="Networks that requests on a user's behalf, such as webhooks, may go to although "
        "they are not public, separated by commas.",
    )
    webhook_secret_keys: SecretStr | None = Field(
        default=None,
        description="Keys that encrypt the webhooks' secrets, separated by commas: 32 random bytes in "
        "URL-safe Base64 each. The first one encrypts; the others are still read. None: no webhooks.",
    )
    webhook_senders: int = Field(default=8, ge=0, description="Threads of an API process that send webhooks.")
    webhook_poll_seconds: float = Field(default=1, gt=0, description="Between two looks for due webhooks.")
    webhook_timeout_seconds: float = Field(default=15, gt=0, description="What a receiver has to answer.")

    @field_validator("database_url")
    @classmethod
    def _name_the_driver(cls, url: str) -> str:
        return normalise_database_url(url)

    @field_validator("teachers_dirs", mode="before")
    @classmethod
    def _split_and_add_bundled(cls, value: object) -> object:
        folders = (
            [Path(part) for part in value.split(os.pathsep) if part] if isinstance(value, str) else value
        )
        if not isinstance(folders, list):
            return folders
        return list(dict.fromkeys([*map(Path, folders), *_bundled_teachers()]))

    @field_validator("public_hosts", mode="before")
    @classmethod
    def _split_hosts(cls, value: object) -> object:
        if isinstance(value, str):
            return [host.strip().lower() for host in value.split(",") if host.strip()]
        return value

    @field_validator("outgoing_allowed_networks", mode="before")
    @classmethod
    def _split_networks(cls, value: object) -> object:
        return parse_networks(value) if isinstance(value, str) else value

    @field_validator("webhook_secret_keys")
    @classmethod
    def _check_keys(cls, value: SecretStr | None) -> SecretStr | None:
        for key in [] if value is None else value.get_secret_value().split(","):
            if len(base64.urlsafe_b64decode(key.strip())) != 32:
                raise ValueError("each key must be 32 bytes in URL-safe Base64")
        return value

    @property
    def captions_folder(self) -> Path:
        """Folder that caption files must lie in."""
        return self.captions_dir or self.data_dir / "captions"

    @property
    def work_dir(self) -> Path:
        """Folder that holds one work folder for each attempt."""
        return self.data_dir / "work"

    @property
    def cache_dir(self) -> Path:
        """Folder of latents that jobs on this machine share."""
        return self.data_dir / "cache"


@lru_cache(maxsize=1)
def get_settings() -> Settings:
    """Read the settings from the environment, once per process."""
    return Settings()
