"""Settings of the service, read from the environment.

Every process of the service reads the same names, so one environment configures the whole stack. Any of them
may be in a file instead, which ``NAME_FILE`` names: that is how secrets are handed to containers. Secrets are
never part of a ``repr`` nor of an error; ``python -m store.settings`` prints all settings without them.
"""

import base64
import json
import os
import re
import sys
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import unquote, urlsplit, urlunsplit

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from core.logs import LogFormat
from core.object_references import ObjectReference
from store.accelerators import AcceleratorClass, lesser_queues, parse_classes
from store.addresses import Network, parse_networks
from store.errors import MissingSettingError

HIDDEN = "***"
_ORIGIN = re.compile(r"https?://[a-z0-9.\-\[\]:]+")
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


class NamedFiles(PydanticBaseSettingsSource):
    """Settings in files: the variable ``NAME_FILE`` names the one that holds ``NAME``."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """Read one setting, if it is in a file."""
        name = field_name.upper()
        is_in_file = f"{name}_FILE" in os.environ
        return read_setting(name) if is_in_file else None, field_name, False

    def __call__(self) -> dict[str, Any]:
        """Read all settings that are in files."""
        read = {
            name: self.get_field_value(field, name)[0]
            for name, field in self.settings_cls.model_fields.items()
        }
        return {name: value for name, value in read.items() if value is not None}


class Settings(BaseSettings):
    """Where the servers are, where files go, and the service's time limits.

    Field names in upper case are the names of the environment variables.
    """

    # Errors that show what was given would show secrets.
    model_config = SettingsConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)

    database_url: str = Field(repr=False, description="Postgres.")
    redis_url: str = Field(repr=False, description="Redis or Valkey.")
    s3_endpoint_url: str | None = Field(default=None, description="S3 server; AWS itself when empty.")
    s3_public_endpoint_url: str | None = Field(
        default=None, description="Address that clients use for S3, when it differs from ours."
    )
    files_through_api: bool = Field(
        default=False,
        description="Links to files lead to the API, which passes the files on, instead of to S3; for "
        "clients that cannot reach S3.",
    )
    s3_bucket: str = Field(default="condenser", description="Bucket of all files; workers do not make it.")
    s3_region: str = Field(default="us-east-1", description="Region of the bucket.")
    s3_access_key_id: str | None = Field(
        default=None, repr=False, description="Access key; boto3's usual places if empty."
    )
    s3_secret_access_key: SecretStr | None = Field(default=None, description="The secret that belongs to it.")
    api_key_pepper: SecretStr | None = Field(
        default=None,
        min_length=32,
        description="Secret of 32 characters or more that digests of API keys are made with. The API needs "
        "it, and another one makes all keys invalid.",
    )
    quota_queued_jobs: int | None = Field(
        default=10_000,
        ge=0,
        description="Jobs of a tenant that may wait; a tenant's own row goes before this.",
    )
    quota_running_jobs: int | None = Field(default=None, ge=0, description="Jobs of a tenant at a time.")
    quota_bytes_stored: int | None = Field(default=None, ge=0, description="All files of a tenant, in bytes.")
    quota_captions_per_job: int | None = Field(
        default=None, ge=1, description="Captions that one job may have."
    )
    quota_open_generations: int | None = Field(
        default=8, ge=0, description="Generations of a tenant that may wait or be drawn at a time."
    )
    rate_limit_per_minute: int | None = Field(
        default=6_000, ge=1, description="Requests with one key; no limit when empty."
    )
    key_cache_seconds: float = Field(
        default=5, ge=0, description="A checked key is good for so long, also when it was revoked elsewhere."
    )
    dashboard_key_file: Path | None = Field(
        default=None,
        description="File with the API key that visitors of the dashboard have without signing in; for a "
        "service on one's own machine.",
    )
    data_dir: Path = Field(
        default=Path(".condenser"), description="A worker's work folders and caches, and caption files."
    )
    teachers_dirs: Annotated[list[Path], NoDecode] = Field(
        default=[],
        validate_default=True,
        description="Folders of teachers, separated by colons, beside those that come with the service.",
    )
    worker_queue: str = Field(
        default="cpu",
        description="Queue of this worker, one per class of accelerator, and of submitted jobs whose memory "
        "is not known. Left out or empty, a worker serves the greatest of ACCELERATOR_CLASSES that its "
        "device is fit for, and such jobs go to the greatest of all; a worker whose device is not fit for "
        "the class named does not start.",
    )
    interactive_queue: str = Field(
        default="interactive", description="Queue of generations and of the workers that draw them."
    )
    interactive_device: Literal["auto", "cpu"] = Field(
        default="auto",
        description="Where the interactive worker draws: auto for the accelerator if there is one, cpu to "
        "leave it to the trainings of the same machine.",
    )
    interactive_models_bytes: int = Field(
        default=8 * 2**30,
        ge=0,
        description="Memory of the models that an interactive worker keeps ready between two generations; "
        "what was not used for longest goes first.",
    )
    interactive_idle_seconds: float = Field(
        default=900, gt=0, description="An interactive worker without work lets go of all models after this."
    )
    interactive_lease_seconds: float = Field(
        default=20,
        gt=0,
        description="An interactive worker that is silent for so long is taken to be gone, and what it drew "
        "has failed.",
    )
    generation_watch_seconds: float = Field(
        default=30, gt=0, description="A generation that nobody asked about for so long is not drawn."
    )
    generation_keep_seconds: float = Field(
        default=86_400, gt=0, description="Generations are deleted with their pictures after so long."
    )
    accelerator_classes: Annotated[list[str], NoDecode] = Field(
        default=[],
        description="Classes of accelerators of this installation, from the least to the greatest, separated "
        "by commas, as cpu,gpu=24,gpu-80gb=80: a queue each, with the memory in GiB that chooses a job's. "
        "The class cpu, and any that begins with cpu-, is of processors. A worker serves its own queue and "
        "those before it. One queue when empty.",
    )
    worker_processes: int = Field(
        default=1,
        ge=1,
        description="Accelerators that a job has on this worker, a process for each; no more than its batch "
        "has samples.",
    )
    lease_seconds: float = Field(
        default=60,
        gt=0,
        description="A job is taken back this long after a beat; at least two HEARTBEAT_SECONDS.",
    )
    heartbeat_seconds: float = Field(default=10, gt=0, description="Pause between a worker's heartbeats.")
    cancel_grace_seconds: float = Field(
        default=120, gt=0, description="What a trainer has to write a checkpoint: from SIGTERM to SIGKILL."
    )
    upload_patience_seconds: float = Field(
        default=3_600, gt=0, description="How long S3 may stay away before uploads are given up."
    )
    max_attempts: int = Field(
        default=3, ge=1, description="Attempts that may crash before a job fails, unless they get further."
    )
    cache_max_bytes: int = Field(
        default=100 * 2**30, ge=0, description="A worker's caches; what was not used for longest goes first."
    )
    min_free_bytes: int = Field(
        default=2**30,
        ge=0,
        description="A worker takes no job while its disk has less room than this, even without its caches.",
    )
    reconcile_seconds: float = Field(default=10, gt=0, description="Pause between the reconciler's passes.")
    sweep_seconds: float = Field(default=3_600, gt=0, description="Between two looks for broken uploads.")
    public_hosts: Annotated[list[str], NoDecode] = Field(
        default=[],
        description="Names by which browsers and clients reach the API, separated by commas, beside those of "
        "loopback; * for any.",
    )
    cors_origins: Annotated[list[str], NoDecode] = Field(
        default=[],
        description="Origins, as https://example.org, separated by commas, whose pages may use the API from "
        "a browser; none by default.",
    )
    captions_dir: Path | None = Field(
        default=None, description="Folder that caption files must lie in; DATA_DIR/captions when empty."
    )
    max_body_bytes: int = Field(default=4 * 2**20, ge=1, description="Largest request body.")
    max_caption_file_bytes: int = Field(
        default=2 * 2**30, ge=1, description="Largest caption file to upload, or to fetch from S3."
    )
    max_teacher_bytes: int = Field(
        default=64 * 2**30, ge=1, description="Largest teacher to fetch from S3, all its files together."
    )
    s3_caption_prefixes: Annotated[list[str], NoDecode] = Field(
        default=[],
        description="Where jobs may read captions from, as s3://bucket/prefix separated by commas; nowhere "
        "by default.",
    )
    s3_teacher_prefixes: Annotated[list[str], NoDecode] = Field(
        default=[], description="Where jobs may read teachers from, in the same form; nowhere by default."
    )
    upload_silence_seconds: float = Field(
        default=60, gt=0, description="An upload of which nothing arrives for so long is given up."
    )
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

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read the environment, and files that it names."""
        return init_settings, env_settings, NamedFiles(settings_cls)

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

    @field_validator(
        *("s3_endpoint_url", "s3_public_endpoint_url", "s3_access_key_id", "s3_secret_access_key"),
        *("quota_queued_jobs", "quota_running_jobs", "quota_bytes_stored", "quota_captions_per_job"),
        *("quota_open_generations", "rate_limit_per_minute", "worker_metrics_port"),
        *("captions_dir", "dashboard_key_file"),
        mode="before",
    )
    @classmethod
    def _empty_is_none(cls, value: object) -> object:
        return value or None

    @model_validator(mode="before")
    @classmethod
    def _empty_queue_is_none_named(cls, given: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in given.items() if (name, value) != ("worker_queue", "")}

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

    @field_validator(
        "s3_caption_prefixes", "s3_teacher_prefixes", "cors_origins", "accelerator_classes", mode="before"
    )
    @classmethod
    def _split_commas(cls, value: object) -> object:
        if isinstance(value, str):
            return [entry.strip() for entry in value.split(",") if entry.strip()]
        return value

    @model_validator(mode="after")
    def _check_beats(self) -> Self:
        if self.lease_seconds < 2 * self.heartbeat_seconds:
            raise ValueError(
                f"a worker that beats every {self.heartbeat_seconds:g} s (HEARTBEAT_SECONDS) would lose its "
                f"jobs after {self.lease_seconds:g} s (LEASE_SECONDS): let a lease last for two beats or more"
            )
        return self

    @field_validator("accelerator_classes")
    @classmethod
    def _check_classes(cls, classes: list[str]) -> list[str]:
        parse_classes(classes)
        return classes

    @field_validator("cors_origins")
    @classmethod
    def _check_origins(cls, origins: list[str]) -> list[str]:
        for origin in origins:
            if not _ORIGIN.fullmatch(origin):
                raise ValueError(f"{origin!r} is no origin: write scheme://host, with :port where it has one")
        return origins

    @field_validator("s3_caption_prefixes", "s3_teacher_prefixes")
    @classmethod
    def _check_prefixes(cls, prefixes: list[str]) -> list[str]:
        for prefix in prefixes:
            ObjectReference.parse_prefix(prefix)
        return prefixes

    def required_pepper(self) -> str:
        """Give the pepper of API keys; `MissingSettingError` when there is none."""
        if self.api_key_pepper is None:
            raise MissingSettingError(
                "API_KEY_PEPPER is not set. API keys are made and checked with it: set it, or "
                "API_KEY_PEPPER_FILE, to a secret of 32 characters or more that stays the same, such as the "
                "output of `openssl rand -hex 32`.",
                field="API_KEY_PEPPER",
            )
        return self.api_key_pepper.get_secret_value()

    def secrets(self) -> set[str]:
        """Every password and key among the settings, as it is spelt there and as it is meant."""
        held = {value.get_secret_value() for _, value in self if isinstance(value, SecretStr)}
        spelt = {urlsplit(url).password for url in (self.database_url, self.redis_url)}
        return held | {form for password in spelt if password for form in (password, unquote(password))}

    @property
    def classes(self) -> list[AcceleratorClass]:
        """Classes of accelerators, from the least to the greatest."""
        return parse_classes(self.accelerator_classes)

    @property
    def is_queue_named(self) -> bool:
        """Whether ``worker_queue`` was given, and is not only what it is by default."""
        return "worker_queue" in self.model_fields_set

    @property
    def queue_of_unknown_memory(self) -> str:
        """Queue of a job of which nobody knows what it takes: where none is named, that which holds most."""
        return self.worker_queue if self.is_queue_named or not self.classes else self.classes[-1].name

    @property
    def lesser_queues(self) -> list[str]:
        """Queues that a worker serves beside its own."""
        return lesser_queues(self.classes, self.worker_queue)

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


def read_setting(name: str) -> str | None:
    """Read one setting from the environment, or from the file that ``NAME_FILE`` names.

    Parameters
    ----------
    name
        In upper case.

    Raises
    ------
    ValueError
        If both are set, or the file cannot be read.
    """
    value, file = os.environ.get(name), os.environ.get(f"{name}_FILE")
    if file is None:
        return value
    if value is not None:
        raise ValueError(f"{name} and {name}_FILE are both set: leave one of them out")
    try:
        return Path(file).read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{name}_FILE names {file}, which cannot be read: {error}") from error


def describe_settings(settings: Settings) -> dict[str, Any]:
    """Return all settings by the names of their variables, without any secret.

    Of an address everything but the server and the path is hidden where there is any of it.
    """
    return {
        name.upper(): _without_secrets(getattr(settings, name), is_shown=field.repr)
        for name, field in sorted(type(settings).model_fields.items())
    }


def _without_secrets(value: Any, *, is_shown: bool) -> Any:
    if isinstance(value, SecretStr):
        return HIDDEN
    if isinstance(value, str) and "://" in value:
        return _without_credentials(value)
    if value is None or is_shown:
        return value
    return HIDDEN


def _without_credentials(url: str) -> str:
    parts = urlsplit(url)
    credentials, at, server = parts.netloc.rpartition("@")
    return urlunsplit(
        parts._replace(
            netloc=f"{HIDDEN if credentials else ''}{at}{server}",
            query=HIDDEN if parts.query else "",
            fragment="",
        )
    )


@lru_cache(maxsize=1)
def get_settings() -> Settings:
    """Read the settings from the environment, once per process."""
    return Settings()


if __name__ == "__main__":
    json.dump(describe_settings(get_settings()), sys.stdout, indent=2, default=str)
    sys.stdout.write("\n")
