"""Objects that users name, in any bucket of our S3 server: read, never written.

What may be read is for the caller to decide. An object is fetched as it was when it was listed, or not at
all.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from botocore.exceptions import ClientError

from core.object_references import ObjectReference
from store.errors import RemoteObjectError
from store.objects import PATIENT, Patience, failures_named, make_client
from store.s3_clock import dated_ahead, refused_for_its_date
from store.settings import Settings

BLOCK_BYTES = 2**20
REVISION_DIGITS = 32
_REFUSALS = {403, 404, 412}


@dataclass(frozen=True)
class RemoteObject:
    """An object as it was when it was found."""

    reference: ObjectReference
    size: int
    entity_tag: str


class RemoteObjects:
    """Whatever objects the service's own credentials may read.

    Every method raises `RemoteObjectError` for what is not there or may not be read, and `UnavailableError`
    for a server that fails.

    Parameters
    ----------
    settings
        Endpoint and credentials.
    patience
        With the server.
    """

    def __init__(self, settings: Settings, patience: Patience = PATIENT) -> None:
        self._client = make_client(settings, settings.s3_endpoint_url, patience)

    def find(self, reference: ObjectReference) -> RemoteObject:
        """Find one object."""
        with _refusals_named(reference):
            head = self._client.head_object(Bucket=reference.bucket, Key=reference.key)
        return RemoteObject(reference, head["ContentLength"], head["ETag"])

    def list_under(self, prefix: ObjectReference, limit: int) -> list[RemoteObject]:
        """List the objects in a folder and below it; more than a limit are refused."""
        with _refusals_named(prefix):
            page = self._client.list_objects_v2(Bucket=prefix.bucket, Prefix=f"{prefix.key}/", MaxKeys=limit)
        if page["IsTruncated"]:
            raise RemoteObjectError(f"There are more than {limit} objects under {prefix}.")
        return [
            RemoteObject(ObjectReference(prefix.bucket, entry["Key"]), entry["Size"], entry["ETag"])
            for entry in page.get("Contents", [])
            if not entry["Key"].endswith("/")  # what some tools write to stand for a folder
        ]

    def read(self, found: RemoteObject, *, max_bytes: int) -> bytes:
        """Read a small object."""
        if found.size > max_bytes:
            raise RemoteObjectError(f"{found.reference} has {found.size:,} bytes; {max_bytes:,} are allowed.")
        content = bytearray()
        self._fetch(found, content.extend, lambda: None)
        return bytes(content)

    def download(self, found: RemoteObject, path: Path, go_on: Callable[[], None]) -> None:
        """Fetch an object into a file.

        Parameters
        ----------
        found
            The object; another content in its place is refused.
        path
            The file.
        go_on
            Called before each block; raises when nobody wants the file any more.
        """
        with path.open("wb") as file:
            self._fetch(found, file.write, go_on)

    def _fetch(
        self, found: RemoteObject, write: Callable[[bytes], object], go_on: Callable[[], None]
    ) -> None:
        received = 0
        with _refusals_named(found.reference):
            answer = self._client.get_object(
                Bucket=found.reference.bucket, Key=found.reference.key, IfMatch=found.entity_tag
            )
            with answer["Body"] as body:
                while block := body.read(BLOCK_BYTES):
                    go_on()
                    received += len(block)
                    if received > found.size:
                        break
                    write(block)
        if received != found.size or answer["ETag"] != found.entity_tag:
            raise RemoteObjectError(f"{found.reference} changed while it was read.")


def revision_of(objects: Iterable[RemoteObject]) -> str:
    """Name a content: it changes with the place, the size or the entity tag of any of the objects."""
    digest = hashlib.sha256()
    for found in objects:
        digest.update(f"{found.reference} {found.size} {found.entity_tag}\n".encode())
    return digest.hexdigest()[:REVISION_DIGITS]


@contextmanager
def _refusals_named(reference: ObjectReference) -> Iterator[None]:
    """Tell what the user can mend from a server that fails, or that refused a signature of another time."""
    ahead = dated_ahead()
    with failures_named():
        try:
            yield
        except ClientError as error:
            status = error.response["ResponseMetadata"]["HTTPStatusCode"]
            if status not in _REFUSALS or refused_for_its_date(error, ahead):
                raise
            raise RemoteObjectError(
                f"{reference} is not there, has changed, or may not be read by the service."
            ) from error
