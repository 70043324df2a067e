"""Object store, settings, migrations: the edges of the store on real servers."""

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from pydantic import SecretStr, ValidationError
from sqlalchemy import Engine, inspect

from store.database import create_engine, ping, transaction
from store.errors import CorruptObjectError, UnavailableError
from store.models import Base
from store.objects import ObjectStore, file_sha256
from store.settings import Settings, normalise_database_url

OF_THE_RELEASE_BEFORE = {"interactive_workers"}
"""Tables that no model has any more; a later revision drops them."""


def test_what_is_uploaded_is_what_is_downloaded(object_store: ObjectStore, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "new" / "target"
    source.write_bytes(bytes(range(256)) * 1_000)
    stored = object_store.upload_file(source, "folder/a")
    assert (stored.size, stored.sha256) == (256_000, file_sha256(source))
    object_store.download_file("folder/a", target, sha256=stored.sha256)
    assert target.read_bytes() == source.read_bytes()
    with pytest.raises(CorruptObjectError):
        object_store.download_file("folder/a", target, sha256="0" * 64)
    with pytest.raises(CorruptObjectError):
        object_store.download_file("folder/none", target, sha256=stored.sha256)


def test_prefixes_are_listed_and_deleted(object_store: ObjectStore, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_text("x")
    for key in ("a/2", "a/1", "ab/1"):
        object_store.upload_file(source, key)
    assert object_store.list_keys("a/") == ["a/1", "a/2"]
    object_store.delete_prefix("a/")
    object_store.delete_keys(["a/1"])
    assert object_store.list_keys("a") == ["ab/1"]
    with pytest.raises(ValueError, match="slash"):
        object_store.delete_prefix("a")


def test_a_link_opens_one_object_and_no_other(object_store: ObjectStore, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_text("content")
    object_store.upload_file(source, "one")
    object_store.upload_file(source, "two")
    link = object_store.presigned_get("one", filename="student.zip", expires_seconds=60)
    with urlopen(link) as answer:
        assert answer.read() == b"content"
        assert answer.headers["Content-Disposition"] == 'attachment; filename="student.zip"'
    with pytest.raises(HTTPError) as refused:
        urlopen(link.replace("/one", "/two"))
    assert refused.value.code == 403
    refused.value.close()


def test_an_object_is_read_whole_or_its_end(object_store: ObjectStore, tmp_path: Path) -> None:
    for name, content in (("letters", b"abcdef"), ("nothing", b"")):
        (tmp_path / name).write_bytes(content)
        object_store.upload_file(tmp_path / name, name)
    assert object_store.read_object("letters") == b"abcdef"
    assert object_store.read_object("letters", last_bytes=2) == b"ef"
    assert object_store.read_object("letters", last_bytes=99) == b"abcdef"
    assert object_store.read_object("nothing") == object_store.read_object("nothing", last_bytes=9) == b""
    with pytest.raises(CorruptObjectError):
        object_store.read_object("missing")


def test_links_are_signed_for_the_public_address(settings: Settings) -> None:
    public = settings.model_copy(update={"s3_public_endpoint_url": "https://files.example.org"})
    assert (
        ObjectStore(public).presigned_get("a").startswith(f"https://files.example.org/{public.s3_bucket}/a?")
    )


def test_ensuring_a_bucket_twice_is_harmless(object_store: ObjectStore) -> None:
    object_store.ensure_bucket()
    object_store.ping()


@pytest.mark.parametrize(
    "change", [{"s3_secret_access_key": SecretStr("wrong")}, {"s3_endpoint_url": "http://127.0.0.1:1"}]
)
def test_a_store_that_refuses_or_is_away_is_unavailable(
    settings: Settings, tmp_path: Path, change: dict[str, object]
) -> None:
    source = tmp_path / "source"
    source.write_text("x")
    objects = ObjectStore(settings.model_copy(update=change))
    for action in (objects.ping, lambda: objects.upload_file(source, "a"), lambda: objects.list_keys("a")):
        with pytest.raises(UnavailableError):
            action()


class HalfAServer(BaseHTTPRequestHandler):
    """Breaks every download off, and refuses to delete anything in the way of S3: with a 200."""

    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer(b"x" * 1_000, sent=0)

    def do_GET(self) -> None:
        self._answer(b"x" * 1_000, sent=100)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        error = "<Error><Key>a</Key><Code>AccessDenied</Code><Message>no</Message></Error>"
        answer = f"<DeleteResult>{error}</DeleteResult>".encode()
        self._answer(answer, sent=len(answer))

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self, body: bytes, *, sent: int) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", '"a"')
        self.end_headers()
        self.wfile.write(body[:sent])
        self.close_connection = True


@pytest.fixture
def half_a_server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), HalfAServer) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_store_that_breaks_off_or_deletes_in_part_is_unavailable(
    settings: Settings, tmp_path: Path, half_a_server: str
) -> None:
    objects = ObjectStore(settings.model_copy(update={"s3_endpoint_url": half_a_server}))
    with pytest.raises(UnavailableError):
        objects.download_file("a", tmp_path / "a", sha256="0" * 64)
    with pytest.raises(UnavailableError, match=r"did not delete 1 objects, first .*AccessDenied"):
        objects.delete_keys(["a", "b"])


def test_a_database_that_is_away_is_unavailable(settings: Settings) -> None:
    away = settings.model_copy(update={"database_url": "postgresql+psycopg://nobody@127.0.0.1:1/none"})
    engine = create_engine(away)
    with pytest.raises(UnavailableError):
        ping(engine)
    engine.dispose()


def test_a_host_that_has_vanished_is_given_up_long_before_a_lease_ends(
    engine: Engine, settings: Settings
) -> None:
    with engine.connect() as connection:
        number = connection.connection.driver_connection.fileno()
        with socket.socket(fileno=os.dup(number)) as wire:
            milliseconds = wire.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
    assert 0 < milliseconds <= 1_000 * settings.lease_seconds / 3


def test_an_error_rolls_everything_back(engine: Engine) -> None:
    ping(engine)

    def fail_half_way() -> None:
        with transaction(engine) as session:
            session.connection().exec_driver_sql("CREATE TABLE left_over (a int)")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_half_way()
    assert not inspect(engine).has_table("left_over")


def test_the_migrations_make_exactly_the_models_tables(engine: Engine) -> None:
    with engine.connect() as connection:
        context = MigrationContext.configure(connection)
        found = compare_metadata(context, Base.metadata)
        assert {change[1].name for change in found if change[0] == "remove_table"} == OF_THE_RELEASE_BEFORE
        assert [change for change in found if change[0] != "remove_table"] == []
        checks = {
            table: {check["name"] for check in inspect(connection).get_check_constraints(table)}
            for table in Base.metadata.tables
        }
    expected = {
        name: {c.name for c in table.constraints if str(c.name).startswith("ck_")}
        for name, table in Base.metadata.tables.items()
    }
    assert checks == expected


def test_the_migrations_can_be_undone(settings: Settings, engine: Engine) -> None:
    for target in ("base", "head"):
        step = "downgrade" if target == "base" else "upgrade"
        subprocess.run(
            [sys.executable, "-m", "alembic", step, target],
            cwd=Path(__file__).parents[2],
            env={"DATABASE_URL": settings.database_url},
            check=True,
            capture_output=True,
        )
        assert inspect(engine).has_table("jobs") == (target == "head")


def test_database_urls_name_the_driver() -> None:
    for scheme in ("postgres", "postgresql", "postgresql+psycopg"):
        assert normalise_database_url(f"{scheme}://u:p@h/d") == "postgresql+psycopg://u:p@h/d"
    with pytest.raises(ValueError, match="postgresql"):
        normalise_database_url("sqlite:///x")


def test_a_lease_that_ends_between_two_beats_is_refused(
    service_environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in service_environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("LEASE_SECONDS", "15")
    with pytest.raises(ValidationError, match=r"beats every 10 s .*after 15 s"):
        Settings()
    monkeypatch.setenv("HEARTBEAT_SECONDS", "7.5")
    assert Settings().lease_seconds == 15


def test_settings_read_lists_of_folders_and_keep_secrets(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, value in {
        "DATABASE_URL": "postgresql://u:hidden@h/d",
        "REDIS_URL": "redis://:hidden@h",
        "S3_SECRET_ACCESS_KEY": "hidden",
        "TEACHERS_DIRS": f"{tmp_path / 'a'}:{tmp_path / 'b'}",
    }.items():
        monkeypatch.setenv(name, value)
    settings = Settings()
    assert settings.teachers_dirs[:2] == [tmp_path / "a", tmp_path / "b"]
    assert "hidden" not in repr(settings)
