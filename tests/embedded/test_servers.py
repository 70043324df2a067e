"""The three servers are real, keep what they are given, and let nobody in without credentials."""

import stat
from pathlib import Path
from typing import TYPE_CHECKING

import boto3
import httpx
import psycopg
import pytest
import redis
from botocore.config import Config
from botocore.exceptions import ClientError

from embedded.stack import running
from embedded.state import Stack

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


def s3_client(stack: Stack, **changed: str) -> "S3Client":
    keys = {
        "aws_access_key_id": stack.variables["S3_ACCESS_KEY_ID"],
        "aws_secret_access_key": stack.variables["S3_SECRET_ACCESS_KEY"],
    }
    return boto3.client(
        "s3",
        endpoint_url=stack.variables["S3_ENDPOINT_URL"],
        region_name=stack.variables["S3_REGION"],
        config=Config(
            signature_version="s3v4",
            s3={"addressing_style": "path"},
            proxies={},
            retries={"mode": "standard", "max_attempts": 8},  # for a server that has only just started
        ),
        **(keys | changed),
    )


def put_something_everywhere(stack: Stack) -> None:
    with psycopg.connect(stack.variables["DATABASE_URL"]) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 'row' AS what")
    with redis.Redis.from_url(stack.variables["REDIS_URL"]) as broker:
        broker.set("kept", "value")
    s3_client(stack).put_object(Bucket=stack.variables["S3_BUCKET"], Key="kept/object", Body=b"bytes" * 10**6)


def assert_everything_is_there(stack: Stack) -> None:
    with psycopg.connect(stack.variables["DATABASE_URL"]) as connection:
        assert connection.execute("SELECT what FROM kept").fetchall() == [("row",)]
    with redis.Redis.from_url(stack.variables["REDIS_URL"]) as broker:
        assert broker.get("kept") == b"value"
    stored = s3_client(stack).get_object(Bucket=stack.variables["S3_BUCKET"], Key="kept/object")
    assert stored["Body"].read() == b"bytes" * 10**6


def test_data_outlasts_a_restart_even_on_other_ports(deep_data_dir: Path) -> None:
    with running(deep_data_dir, environ={}) as stack:
        put_something_everywhere(stack)
        first = stack.variables
    with running(deep_data_dir, environ={}) as stack:
        assert stack.variables == first, "addresses and credentials stay while the ports are free"
        assert_everything_is_there(stack)
    (deep_data_dir / "ports.json").unlink()
    with running(deep_data_dir, environ={}) as stack:
        assert stack.variables["S3_ENDPOINT_URL"] != first["S3_ENDPOINT_URL"]
        assert_everything_is_there(stack)


def test_postgres_refuses_a_wrong_password(stack: Stack) -> None:
    password = stack.variables["DATABASE_URL"].split(":")[2].split("@")[0]
    forged = stack.variables["DATABASE_URL"].replace(password, "wrong")
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(forged)


@pytest.mark.parametrize("password", ["", ":wrong@"])
def test_valkey_refuses_strangers(stack: Stack, password: str) -> None:
    address = stack.variables["REDIS_URL"].split("@")[1]
    with (
        redis.Redis.from_url(f"redis://{password}{address}") as stranger,
        pytest.raises(redis.AuthenticationError),
    ):
        stranger.ping()


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"aws_secret_access_key": "wrong"}, "SignatureDoesNotMatch"),
        ({"aws_access_key_id": "nobody"}, "InvalidAccessKeyId"),
    ],
)
def test_s3_refuses_wrong_keys(stack: Stack, changed: dict[str, str], code: str) -> None:
    with pytest.raises(ClientError, match=code):
        s3_client(stack, **changed).list_buckets()


def test_s3_refuses_requests_without_a_signature(stack: Stack, bucket: str) -> None:
    s3_client(stack).put_object(Bucket=bucket, Key="secret", Body=b"secret")
    url = f"{stack.variables['S3_ENDPOINT_URL']}/{bucket}"
    with httpx.Client(trust_env=False) as stranger:
        assert stranger.get(url).status_code == 403
        assert stranger.get(f"{url}/secret").status_code == 403
        assert stranger.put(f"{url}/secret", content=b"changed").status_code == 403
        assert stranger.delete(f"{url}/secret").status_code == 403


def test_s3_refuses_a_presigned_link_that_was_changed(stack: Stack, bucket: str) -> None:
    client = s3_client(stack)
    for key in ("mine", "other"):
        client.put_object(Bucket=bucket, Key=key, Body=key.encode())
    link = client.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "mine"})
    with httpx.Client(trust_env=False) as holder:
        assert holder.get(link).text == "mine"
        assert holder.get(link.replace("/mine", "/other")).status_code == 403


def test_objects_cannot_be_had_behind_the_gateway(stack: Stack, bucket: str) -> None:
    """The filer answers plain HTTP on a port of its own; it must not be a back door."""
    s3_client(stack).put_object(Bucket=bucket, Key="secret", Body=b"secret")
    command = next(record for record in stack.processes if record.name == "seaweedfs").find()
    assert command is not None
    option = next(part for part in command.cmdline() if part.startswith("-filer.port="))
    url = f"http://127.0.0.1:{option.partition('=')[2]}/buckets/{bucket}/secret"
    with httpx.Client(trust_env=False) as stranger:
        assert stranger.get(url).status_code == 401
        assert stranger.put(url, content=b"changed").status_code == 401


def test_every_port_is_on_loopback_only(stack: Stack) -> None:
    for record in stack.processes:
        process = record.find()
        assert process is not None
        for part in (process, *process.children(recursive=True)):
            listening = [c for c in part.net_connections("inet") if c.status == "LISTEN"]
            assert {c.laddr.ip for c in listening} <= {"127.0.0.1"}, record.name


def test_files_with_secrets_are_for_their_owner_alone(stack: Stack) -> None:
    for name in ("stack.json", "credentials.json", "valkey/valkey.conf", "s3/identities.json"):
        assert stat.S_IMODE((stack.data_dir / name).stat().st_mode) == 0o600, name


def test_only_missing_servers_are_started(data_dir: Path) -> None:
    named = {"DATABASE_URL": "postgresql://elsewhere/db", "S3_ENDPOINT_URL": "https://s3.elsewhere"}
    with running(data_dir, environ=named, durable=False) as stack:
        assert [record.name for record in stack.processes] == ["valkey"]
        assert set(stack.environment()) == {"DATA_DIR", "REDIS_URL", "WEBHOOK_SECRET_KEYS"}
