"""What a job reads that lies elsewhere: fetched into the cache of this machine before the trainer starts.

The trainer itself knows no object store; it is told the folder and the file. Entries of the cache are named
by their content, made whole or not at all, and shared by the workers of a machine.
"""

import contextlib
import fcntl
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from core.cache import hold
from core.files import replacing
from core.spec import BadCaptionsError, BadTeacherError, CaptionSource, S3Captions, UploadedCaptions
from store.caption_files import get_caption_file
from store.database import Engine, transaction
from store.errors import CorruptObjectError, NotFoundError, RemoteObjectError, UnusableInputError
from store.objects import ObjectStore
from store.remote_inputs import find_captions, find_teacher_files, is_remote
from store.remote_objects import RemoteObjects
from store.settings import Settings

USED_FILE = ".used"
_LOCK_POLL_SECONDS = 0.2
_CAPTIONS: TypeAdapter[CaptionSource] = TypeAdapter(CaptionSource)


@dataclass(frozen=True)
class FetchedInputs:
    """Where what was fetched lies; None for what is no such input."""

    teacher: Path | None = None
    captions: Path | None = None


class InputFetcher:
    """Fetches the inputs of jobs.

    Parameters
    ----------
    engine, objects, remote
        The database, our own bucket, and the objects that users name.
    settings
        The cache's folder, and what is allowed.
    """

    def __init__(
        self, *, engine: Engine, objects: ObjectStore, remote: RemoteObjects, settings: Settings
    ) -> None:
        self._engine = engine
        self._objects = objects
        self._remote = remote
        self._settings = settings
        self._cache = settings.cache_dir.resolve()
        self._held: list[int] = []

    def fetch(self, spec: dict[str, Any], tenant_id: str, go_on: Callable[[], None]) -> FetchedInputs:
        """Bring everything that a specification names elsewhere; may be repeated.

        Parameters
        ----------
        spec
            The accepted specification.
        tenant_id
            Whose job it is.
        go_on
            Called time and again; raises when nobody wants the inputs any more.

        Raises
        ------
        UnusableInputError
            If another attempt would find nothing else.
        """
        captions = _CAPTIONS.validate_python(spec["captions"])
        try:
            return FetchedInputs(
                teacher=self._remote_teacher(spec["teacher"], go_on),
                captions=self._captions(captions, tenant_id, go_on),
            )
        except BadTeacherError as error:
            raise UnusableInputError("bad_teacher", error.message, error.hint) from error
        except BadCaptionsError as error:
            raise UnusableInputError("bad_captions", error.message, error.hint) from error

    def fetch_teacher(self, reference: str, go_on: Callable[[], None]) -> Path | None:
        """Bring a teacher alone; None for one that this machine has. Raises as `fetch`."""
        try:
            return self._remote_teacher(reference, go_on)
        except BadTeacherError as error:
            raise UnusableInputError("bad_teacher", error.message, error.hint) from error

    def _remote_teacher(self, reference: str, go_on: Callable[[], None]) -> Path | None:
        if not is_remote(reference):
            return None
        with tempfile.TemporaryDirectory() as scratch:
            teacher = find_teacher_files(self._remote, self._settings, reference, Path(scratch))

        def make(entry: Path) -> None:
            folder = entry / teacher.name
            for name, found in teacher.files.items():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                try:
                    self._remote.download(found, folder / name, go_on)
                except RemoteObjectError as error:
                    raise BadTeacherError(error.detail, "submit the job anew") from error

        return self.entry("teachers", teacher.revision, make, go_on) / teacher.name

    def _captions(self, captions: CaptionSource, tenant_id: str, go_on: Callable[[], None]) -> Path | None:
        match captions:
            case UploadedCaptions():
                return self._uploaded_captions(captions, tenant_id, go_on)
            case S3Captions():
                return self._remote_captions(captions, go_on)
        return None

    def _uploaded_captions(
        self, captions: UploadedCaptions, tenant_id: str, go_on: Callable[[], None]
    ) -> Path:
        try:
            with transaction(self._engine) as session:
                file = get_caption_file(session, captions.id, tenant_id=tenant_id)
        except NotFoundError as error:
            message = f"the uploaded captions {captions.id} were deleted"
            raise BadCaptionsError(message, "upload them again and submit the job anew") from error

        def make(entry: Path) -> None:
            try:
                self._objects.download_file(file.key, entry / file.name, sha256=file.sha256)
            except CorruptObjectError as error:
                raise BadCaptionsError(
                    f"the stored file of the uploaded captions {captions.id} is damaged", "upload them again"
                ) from error

        return self.entry("captions", f"{file.sha256}-{file.id}", make, go_on) / file.name

    def _remote_captions(self, captions: S3Captions, go_on: Callable[[], None]) -> Path:
        found, revision = find_captions(self._remote, self._settings, captions)
        name = found.reference.key.rpartition("/")[2]

        def make(entry: Path) -> None:
            try:
                self._remote.download(found, entry / name, go_on)
            except RemoteObjectError as error:
                raise BadCaptionsError(error.detail, "submit the job anew") from error

        return self.entry("captions", revision, make, go_on) / name

    def entry(self, kind: str, key: str, make: Callable[[Path], None], go_on: Callable[[], None]) -> Path:
        """Return the folder of a cache entry, made first where it is missing, and mark it as used now.

        Nobody removes it until `release`.

        Parameters
        ----------
        kind, key
            Folder of the cache, and what names the content.
        make
            Fills a folder.
        go_on
            Called while another worker of this machine makes the same entry.
        """
        entry = self._cache / kind / key
        entry.parent.mkdir(parents=True, exist_ok=True)
        with _locked(entry.with_name(f".{key}.lock"), go_on):
            while True:
                if not entry.is_dir():
                    _make_entry(entry, make)
                with contextlib.suppress(FileNotFoundError):  # removed in between, to make room
                    self._held.append(hold(entry))
                    break
            (entry / USED_FILE).touch()
        return entry

    def release(self) -> None:
        """Let whoever makes room remove what was fetched so far."""
        while self._held:
            os.close(self._held.pop())


def _make_entry(entry: Path, make: Callable[[Path], None]) -> None:
    """Fill a folder beside an entry's place, held so that nobody clears it away, and put it there."""
    with contextlib.ExitStack() as hold_until_named, replacing(entry) as unfinished:
        while True:
            unfinished.mkdir()
            with contextlib.suppress(FileNotFoundError):  # taken for a leftover in between
                hold_until_named.callback(os.close, hold(unfinished))
                break
        make(unfinished)


@contextmanager
def _locked(path: Path, go_on: Callable[[], None]) -> Iterator[None]:
    """Hold a lock file; workers of one machine that want the same entry take turns."""
    with path.open("a") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                go_on()
                time.sleep(_LOCK_POLL_SECONDS)
        yield
