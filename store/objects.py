"""The object store: any server that speaks S3.

Files are streamed, never held in memory. Every upload returns the size and the SHA-256 of what was sent;
every download checks the digest. A server that fails is an `UnavailableError`, so that callers can wait and
repeat.
"""

import hashlib
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import boto3
from boto3.exceptions import Boto3Error
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from store.errors import (
    CorruptObjectError,
    MissingObjectError,
    NotFoundError,
    UnavailableError,
    UnsatisfiableRangeError,
)
from store.s3_clock import SIGNATURE_VERSION, learn_server_time, sign_by_server_time
from store.settings import Settings

if TYPE_CHECKING:
    from botocore.response import StreamingBody
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import CompletedPartTypeDef, ObjectIdentifierTypeDef

PIECE_BYTES = 2**18

_TRANSFER = TransferConfig(multipart_threshold=64 * 2**20, multipart_chunksize=32 * 2**20, max_concurrency=4)


@dataclass(frozen=True)
class Patience:
    """How often a client asks an S3 server, and how long it waits for each answer."""

    attempts: int
    read_seconds: float


PATIENT = Patience(attempts=3, read_seconds=60)


@dataclass(frozen=True)
class OpenObject:
    """An object, or a range of it, on its way to somebody.

    Attributes
    ----------
    pieces
        Its bytes, a piece at a time; the connection is given back when they end or are given up.
    size
        How many bytes there are in all pieces.
    etag
        Of the whole object.
    content_range
        Which bytes of how many, where a range was asked for.
    """

    pieces: Iterator[bytes]
    size: int
    etag: str
    content_range: str | None


@dataclass(frozen=True)
class StoredObject:
    """What an upload put into the store."""

    key: str
    size: int
    sha256: str


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class ObjectStore:
    """One bucket.

    Parameters
    ----------
    settings
        Endpoint, credentials and bucket. Links are signed for the public endpoint where there is one.
    patience
        With the server.
    """

    def __init__(self, settings: Settings, patience: Patience = PATIENT) -> None:
        self.bucket = settings.s3_bucket
        self._client = make_client(settings, settings.s3_endpoint_url, patience)
        self._public_client = make_client(
            settings, settings.s3_public_endpoint_url or settings.s3_endpoint_url, patience
        )

    def ensure_bucket(self) -> None:
        """Create the bucket unless it exists."""
        with failures_named():
            try:
                self._client.head_bucket(Bucket=self.bucket)
            except ClientError as error:
                if error.response["ResponseMetadata"]["HTTPStatusCode"] != 404:
                    raise
                self._client.create_bucket(Bucket=self.bucket)

    def ping(self) -> None:
        """Raise `UnavailableError` unless the bucket answers."""
        with failures_named():
            self._client.head_bucket(Bucket=self.bucket)

    def upload_file(self, path: Path, key: str) -> StoredObject:
        """Send a file and return what was stored.

        Parameters
        ----------
        path
            A file that nobody writes to any more; `FileNotFoundError` when it is gone.
        key
            Where to put it; an object there is replaced.
        """
        stored = StoredObject(key=key, size=path.stat().st_size, sha256=file_sha256(path))
        with failures_named():
            self._client.upload_file(
                str(path),
                self.bucket,
                key,
                Config=_TRANSFER,
                ExtraArgs={"Metadata": {"sha256": stored.sha256}},
            )
        return stored

    def download_file(self, key: str, path: Path, *, sha256: str) -> None:
        """Fetch an object into a file; `CorruptObjectError` unless it has this digest.

        `MissingObjectError`, which is one too, when there is no such object.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        with failures_named():
            try:
                self._client.download_file(self.bucket, key, str(path), Config=_TRANSFER)
            except ClientError as error:
                if error.response["ResponseMetadata"]["HTTPStatusCode"] != 404:
                    raise
                raise MissingObjectError(f"Object {key} is missing.") from error
        if file_sha256(path) != sha256:
            raise CorruptObjectError(f"Object {key} is not what was uploaded.")

    def recorded_digest(self, key: str) -> str | None:
        """Return the SHA-256 that is stored with an object; None for one that came piece by piece.

        `MissingObjectError` when there is no such object.
        """
        with failures_named():
            try:
                head = self._client.head_object(Bucket=self.bucket, Key=key)
            except ClientError as error:
                if error.response["ResponseMetadata"]["HTTPStatusCode"] != 404:
                    raise
                raise MissingObjectError(f"Object {key} is missing.") from error
        return head["Metadata"].get("sha256")

    def read_object(self, key: str, *, last_bytes: int | None = None) -> bytes:
        """Read a small object whole, or the end of a large one, for showing it.

        Parameters
        ----------
        key
            The object; `MissingObjectError` when it is missing.
        last_bytes
            Read no more than so many bytes, the last ones.
        """
        wanted = "bytes=0-" if last_bytes is None else f"bytes=-{last_bytes}"
        with failures_named():
            try:
                body = self._client.get_object(Bucket=self.bucket, Key=key, Range=wanted)["Body"]
                with closing(body):
                    content: bytes = body.read()
                    return content
            except ClientError as error:
                status = error.response["ResponseMetadata"]["HTTPStatusCode"]
                if status == 416:  # no byte of an empty object can be asked for
                    return b""
                if status != 404:
                    raise
                raise MissingObjectError(f"Object {key} is missing.") from error

    def open_object(self, key: str, *, byte_range: str | None = None) -> OpenObject:
        """Begin to read an object of any size.

        Parameters
        ----------
        key
            The object; `NotFoundError` when it is missing.
        byte_range
            A Range header as a client sent it; `UnsatisfiableRangeError` beyond the object's end.
        """
        wanted = {} if byte_range is None else {"Range": byte_range}
        with failures_named():
            try:
                answer = self._client.get_object(Bucket=self.bucket, Key=key, **wanted)  # type: ignore[arg-type]
            except ClientError as error:
                status = error.response["ResponseMetadata"]["HTTPStatusCode"]
                if status == 404:
                    raise NotFoundError("The file is no longer stored.") from error
                if status == 416:
                    raise UnsatisfiableRangeError("The range begins beyond the end of the file.") from error
                raise
        return OpenObject(
            pieces=_pieces(answer["Body"]),
            size=answer["ContentLength"],
            etag=answer["ETag"],
            content_range=answer.get("ContentRange"),
        )

    def presigned_get(self, key: str, *, filename: str | None = None, expires_seconds: int = 3_600) -> str:
        """Make a link that lets its holder download one object for a while.

        Parameters
        ----------
        key
            The object.
        filename
            Name under which a browser saves it.
        expires_seconds
            Life of the link.
        """
        parameters = {"Bucket": self.bucket, "Key": key}
        if filename is not None:
            parameters["ResponseContentDisposition"] = f'attachment; filename="{filename}"'
        link: str = self._public_client.generate_presigned_url(
            "get_object", Params=parameters, ExpiresIn=expires_seconds
        )
        return link

    def list_keys(self, prefix: str) -> list[str]:
        """List the keys under a prefix, sorted."""
        with failures_named():
            pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix)
            return sorted(entry["Key"] for page in pages for entry in page.get("Contents", []))

    def delete_keys(self, keys: list[str]) -> None:
        """Delete objects; those that do not exist count as deleted, and one that stays is a failure."""
        with failures_named():
            for start in range(0, len(keys), 1_000):
                batch: list[ObjectIdentifierTypeDef] = [{"Key": key} for key in keys[start : start + 1_000]]
                answer = self._client.delete_objects(
                    Bucket=self.bucket, Delete={"Objects": batch, "Quiet": True}
                )
                if errors := answer.get("Errors"):
                    raise UnavailableError(
                        f"The object store did not delete {len(errors)} objects, first {errors[0]}."
                    )

    def delete_prefix(self, prefix: str) -> None:
        """Delete every object under a prefix, which must name a folder."""
        if not prefix.endswith("/"):
            raise ValueError("a prefix to delete ends with a slash")
        self.delete_keys(self.list_keys(prefix))

    def begin_upload(self, key: str) -> "StreamedUpload":
        """Begin to write an object piece by piece; nothing is stored before the first piece."""
        return StreamedUpload(self._client, self.bucket, key)

    def abort_uploads(self, prefix: str, *, begun_before: datetime | None) -> list[str]:
        """Give up multipart uploads that nobody completed, whose parts would lie in the store for ever.

        Parameters
        ----------
        prefix
            Only uploads to keys under it.
        begun_before
            Later ones may still be under way; None when none can be.

        Returns
        -------
        list of str
            Their keys.
        """
        aborted: list[str] = []
        with failures_named():
            pages = self._client.get_paginator("list_multipart_uploads")
            for page in pages.paginate(Bucket=self.bucket, Prefix=prefix):
                for upload in page.get("Uploads", []):
                    if begun_before is None or upload["Initiated"] < begun_before:
                        self._client.abort_multipart_upload(
                            Bucket=self.bucket, Key=upload["Key"], UploadId=upload["UploadId"]
                        )
                        aborted.append(upload["Key"])
        return aborted


class StreamedUpload:
    """An object on its way into the store, piece by piece; it appears once `complete` has returned.

    Every piece but the last has at least 5 MiB, as the protocol wants it.

    Parameters
    ----------
    client, bucket, key
        Where the object goes.
    """

    def __init__(self, client: "S3Client", bucket: str, key: str) -> None:
        self.key = key
        self.size = 0
        self._client = client
        self._bucket = bucket
        self._digest = hashlib.sha256()
        self._upload_id: str | None = None
        self._parts: list[CompletedPartTypeDef] = []

    def write(self, piece: bytearray) -> None:
        """Send a piece; it may be reused once this returns."""
        with failures_named():
            if self._upload_id is None:
                begun = self._client.create_multipart_upload(Bucket=self._bucket, Key=self.key)
                self._upload_id = begun["UploadId"]
            number = len(self._parts) + 1
            sent = self._client.upload_part(
                Bucket=self._bucket,
                Key=self.key,
                UploadId=self._upload_id,
                PartNumber=number,
                Body=piece,  # type: ignore[arg-type]  # the stubs leave bytearray out
            )
        self._digest.update(piece)
        self.size += len(piece)
        self._parts.append({"ETag": sent["ETag"], "PartNumber": number})

    def complete(self) -> StoredObject:
        """Let the object appear; it has at least one piece."""
        if self._upload_id is None:
            raise ValueError("an object has at least one piece")
        with failures_named():
            self._client.complete_multipart_upload(
                Bucket=self._bucket,
                Key=self.key,
                UploadId=self._upload_id,
                MultipartUpload={"Parts": self._parts},
            )
        return StoredObject(key=self.key, size=self.size, sha256=self._digest.hexdigest())

    def abort(self) -> None:
        """Remove what was sent."""
        if self._upload_id is not None:
            with failures_named():
                self._client.abort_multipart_upload(
                    Bucket=self._bucket, Key=self.key, UploadId=self._upload_id
                )


def _pieces(body: "StreamingBody") -> Iterator[bytes]:
    with closing(body):
        yield from body.iter_chunks(PIECE_BYTES)


def make_client(settings: Settings, endpoint_url: str | None, patience: Patience) -> "S3Client":
    """Make a client of the S3 server that the settings name, at one of its addresses."""
    sign_by_server_time()
    secret = settings.s3_secret_access_key
    return boto3.session.Session().client(
        "s3",
        endpoint_url=endpoint_url,
        region_name=settings.s3_region,
        aws_access_key_id=settings.s3_access_key_id,
        aws_secret_access_key=None if secret is None else secret.get_secret_value(),
        config=Config(
            signature_version=SIGNATURE_VERSION,
            s3={"addressing_style": "path"},
            # Servers other than AWS mishandle the checksums that boto3 adds by default.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            retries={"mode": "standard", "total_max_attempts": patience.attempts},
            connect_timeout=5,
            read_timeout=patience.read_seconds,
        ),
    )


@contextmanager
def failures_named() -> Iterator[None]:
    """Raise `UnavailableError` where the server fails or refuses."""
    try:
        yield
    except (BotoCoreError, ClientError, Boto3Error) as error:
        learn_server_time(error.__context__ if isinstance(error, Boto3Error) else error)
        raise UnavailableError(f"The object store failed: {error}") from error
