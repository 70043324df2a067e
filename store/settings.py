"""Settings of the service, read from the environment.

Every process of the service reads the same names, so one environment configures the whole stack. Secrets are
never part of a ``repr``.
"""

import os
from functools import lru_cache
from pathlib import Path
from typing import Annotated
from urllib.parse import unquote, urlsplit

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from core.logs import LogFormat

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
    s3_bucket: str = Field(default="condenser", description="Bucket of all files; workers do not make it.")
    s3_region: str = Field(default="us-east-1", description="Region of the bucket.")
    s3_access_key_id: str | None = Field(
        default=None, description="Access key; boto3's usual places if empty."
    )
    s3_secret_access_key: SecretStr | None = Field(default=None, description="The secret that belongs to it.")
    data_dir: Path = Field(
        default=Path(".condenser"), description="A worker's work folders and caches, and caption files."
    )
    teachers_dirs: Annotated[list[Path], NoDecode] = Field(
        default=[],
        validate_default=True,
        description="Folders of teachers, separated by colons, beside those that come with the service.",
    )
    worker_queue: str = Field(
        default="cpu", description="Queue of submitted jobs and of this worker, one per class of accelerator."
    )
    lease_seconds: float = Field(default=60, gt=0, description="A job is taken back this long after a beat.")
    heartbeat_seconds: float = Field(default=10, gt=0, description="Pause between a worker's heartbeats.")
    cancel_grace_seconds: float = Field(
        default=120, gt=0, description="What a trainer has to write a checkpoint: from SIGTERM to SIGKILL."
    )
    upload_patience_seconds: float = Field(default=3_600, gt=0, description="Retries while S3 is away.")
    max_attempts: int = Field(default=3, ge=1, description="Attempts that may crash before a job fails.")
    cache_max_bytes: int = Field(
        default=100 * 2**30, ge=0, description="A worker's caches; what was not used for longest goes first."
    )
    reconcile_seconds: float = Field(default=10, gt=0, description="Pause between the reconciler's passes.")
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
    worker_metrics_port: int | None = Field(
        default=None, ge=1, le=65_535, description="Where a worker answers Prometheus; nowhere when empty."
    )
    worker_metrics_host: str = Field(default="127.0.0.1", description="Address that it listens on there.")
    log_format: LogFormat = Field(
        default="auto", description="json, console, or auto: console on a terminal, JSON elsewhere."
    )

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

    def secrets(self) -> set[str]:
        """Every password and key among the settings, as it is spelt there and as it is meant."""
        held = {value.get_secret_value() for _, value in self if isinstance(value, SecretStr)}
        spelt = {urlsplit(url).password for url in (self.database_url, self.redis_url)}
        return held | {form for password in spelt if password for form in (password, unquote(password))}

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
