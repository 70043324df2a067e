"""Settings come from the environment or from files, and their secrets go nowhere else."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from store.settings import Settings, describe_settings, read_setting

REPOSITORY = Path(__file__).parents[2]
SECRETS = {
    "DATABASE_URL": "postgresql://someone:word-of-postgres@db:5432/condenser?password=word-in-query",
    "REDIS_URL": "rediss://:word-of-valkey@queue:6379/1",
    "S3_ENDPOINT_URL": "http://user-of-s3:word-of-s3@store:8333",
    "S3_ACCESS_KEY_ID": "id-of-the-key",
    "S3_SECRET_ACCESS_KEY": "word-of-the-key",
}
WORDS = [
    *("word-of-postgres", "word-in-query", "word-of-valkey", "word-of-s3", "user-of-s3"),
    *("someone", "id-of-the-key", "word-of-the-key"),
]


@pytest.fixture(params=["environment", "files"])
def environment(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, str]:
    """Variables that hold all secrets, or name files that do."""
    if request.param == "environment":
        return SECRETS
    for name, value in SECRETS.items():
        (tmp_path / name).write_text(value + "\n")
    return {f"{name}_FILE": str(tmp_path / name) for name in SECRETS}


def test_secrets_are_read_and_nowhere_shown(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    settings = Settings()
    assert settings.database_url == SECRETS["DATABASE_URL"].replace("postgresql:", "postgresql+psycopg:")
    assert settings.redis_url == SECRETS["REDIS_URL"]
    assert settings.s3_access_key_id == SECRETS["S3_ACCESS_KEY_ID"]
    assert settings.s3_secret_access_key is not None
    assert settings.s3_secret_access_key.get_secret_value() == SECRETS["S3_SECRET_ACCESS_KEY"]
    dumped = json.dumps(describe_settings(settings), default=str)
    assert not [word for word in WORDS if word in dumped]
    assert describe_settings(settings)["DATABASE_URL"] == "postgresql+psycopg://***@db:5432/condenser?***"


def test_the_dump_names_every_setting_and_no_secret(environment: dict[str, str]) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "store.settings"],
        env={"PYTHONPATH": str(REPOSITORY), "PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    dumped = json.loads(ended.stdout)
    assert dumped.keys() == {name.upper() for name in Settings.model_fields}
    assert dumped["S3_BUCKET"] == "condenser"
    assert not [word for word in WORDS if word in ended.stdout + ended.stderr]


def test_an_error_shows_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "mysql://someone:word-of-postgres@db/condenser")
    monkeypatch.setenv("REDIS_URL", "redis://queue")
    with pytest.raises(ValidationError, match="must begin with postgresql://") as caught:
        Settings()
    assert "word-of-postgres" not in str(caught.value)


@pytest.mark.parametrize(
    "name",
    [
        *("S3_ENDPOINT_URL", "S3_PUBLIC_ENDPOINT_URL", "S3_ACCESS_KEY_ID", "S3_SECRET_ACCESS_KEY"),
        *("QUOTA_QUEUED_JOBS", "QUOTA_RUNNING_JOBS", "QUOTA_BYTES_STORED", "QUOTA_CAPTIONS_PER_JOB"),
        *("QUOTA_OPEN_GENERATIONS", "RATE_LIMIT_PER_MINUTE", "WORKER_METRICS_PORT"),
        *("CAPTIONS_DIR", "DASHBOARD_KEY_FILE"),
    ],
)
def test_a_setting_that_is_empty_is_none(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the manual's table says of limits, ports and addresses, and as compose hands on what .env lacks."""
    monkeypatch.setenv(name, "")
    settings = Settings(database_url="postgresql://host/name", redis_url="redis://host")
    assert getattr(settings, name.lower()) is None


def test_a_setting_given_twice_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "url").write_text("redis://queue")
    monkeypatch.setenv("REDIS_URL", "redis://elsewhere")
    monkeypatch.setenv("REDIS_URL_FILE", str(tmp_path / "url"))
    with pytest.raises(ValueError, match="REDIS_URL and REDIS_URL_FILE are both set"):
        read_setting("REDIS_URL")
    with pytest.raises(ValueError, match="both set"):
        Settings()


def test_a_file_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("REDIS_URL_FILE", str(tmp_path / "absent"))
    with pytest.raises(ValueError, match=r"REDIS_URL_FILE names .*absent, which cannot be read"):
        read_setting("REDIS_URL")


def test_lists_come_from_files_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "prefixes").write_text("s3://models/a, s3://models/b\n")
    monkeypatch.setenv("DATABASE_URL", "postgresql://db/condenser")
    monkeypatch.setenv("REDIS_URL", "redis://queue")
    monkeypatch.setenv("S3_TEACHER_PREFIXES_FILE", str(tmp_path / "prefixes"))
    assert Settings().s3_teacher_prefixes == ["s3://models/a", "s3://models/b"]


@pytest.mark.parametrize("prefix", ["models", "s3://", "s3://models/../x", "s3://models//x", "s3://MODELS/x"])
def test_a_prefix_has_the_form_of_a_reference(monkeypatch: pytest.MonkeyPatch, prefix: str) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://db/condenser")
    monkeypatch.setenv("REDIS_URL", "redis://queue")
    monkeypatch.setenv("S3_CAPTION_PREFIXES", prefix)
    with pytest.raises(ValidationError, match=r"S3_CAPTION_PREFIXES|s3_caption_prefixes"):
        Settings()
