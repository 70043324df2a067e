"""Fixtures on real servers: Postgres, Valkey and S3, started once for a whole run of the tests.

The run's first test that needs a server starts all three, in a folder that the run's processes share; the
process that began the run stops them at its very end, however it ends. Servers that a killed run left behind
are stopped by the next run. No fixture ever touches a server that the environment names.
"""

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from sqlalchemy import Engine

    from embedded.state import Stack
    from store.objects import ObjectStore
    from store.settings import Settings

T = TypeVar("T")

REPOSITORY = Path(__file__).resolve().parent.parent
RUN_FOLDER_VARIABLE = "CONDENSER_TEST_RUN"
RUN_FOLDERS = Path(tempfile.gettempdir()) / f"condenser-tests-{os.getuid()}"
TEMPLATE = "migrated"
DEFAULT_TENANT_ID = "00000000-0000-0000-0000-000000000001"
TEST_PEPPER = "a pepper that only tests are made with"
PIPELINE_INDEX = {
    "_class_name": "StableDiffusionPipeline",
    "scheduler": ["diffusers", "PNDMScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}
# A Celery worker that starts on a machine that other tests keep busy can take a minute.
PATIENCE_SECONDS = 120

_run_locks: list[Any] = []


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let the browser's tests keep what they see."""
    parser.addoption("--screenshots", type=Path, help="folder for pictures of every page, from tests/browser")
    parser.addoption("--manual-pictures", type=Path, help="folder for the pictures that the manual shows")


def pytest_configure(config: pytest.Config) -> None:
    """Give the run a folder, and keep the user's own servers and settings out of reach."""
    from store.settings import Settings

    for name in Settings.model_fields:
        os.environ.pop(name.upper(), None)
        os.environ.pop(f"{name.upper()}_FILE", None)
    # Tests run in parallel: threads of one process would only take the cores from the others. Whatever the
    # user's shell says: sums of several threads come out otherwise, and tests compare weights by the bit.
    os.environ["OMP_NUM_THREADS"] = "1"
    # A run that a shell put in the background ignores Ctrl-C, and so would all that the tests start.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if hasattr(config, "workerinput"):
        return
    # A run that is told to end must still stop its servers.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    RUN_FOLDERS.mkdir(exist_ok=True, mode=0o700)
    _clear_dead_runs()
    folder = RUN_FOLDERS / uuid.uuid4().hex[:12]
    folder.mkdir(mode=0o700)
    _run_locks.append(_locked(folder / "run.lock", fcntl.LOCK_EX))
    os.environ[RUN_FOLDER_VARIABLE] = str(folder)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Stop the servers, in the process that began the run; its workers have ended by now."""
    if hasattr(config, "workerinput") or not _run_locks:
        return
    _remove_run(Path(os.environ.pop(RUN_FOLDER_VARIABLE)))
    _run_locks.pop().close()


def _clear_dead_runs() -> None:
    for folder in RUN_FOLDERS.iterdir():
        try:
            lock = _locked(folder / "run.lock", fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, FileNotFoundError):
            continue
        _remove_run(folder)
        lock.close()


def _remove_run(folder: Path) -> None:
    # Only a run that used the servers has their folder, and pays for the import.
    if (folder / "stack").exists():
        from embedded import stack as embedded_stack

        embedded_stack.stop(folder / "stack")
    shutil.rmtree(folder)


def _locked(path: Path, mode: int) -> Any:
    lock = path.open("a")
    try:
        fcntl.flock(lock.fileno(), mode)
    except BlockingIOError:
        lock.close()
        raise
    return lock


@contextmanager
def _one_at_a_time(folder: Path) -> Iterator[None]:
    with _locked(folder / "setup.lock", fcntl.LOCK_EX):
        yield


@pytest.fixture(scope="session")
def stack() -> "Stack":
    """The run's servers, with a migrated template database."""
    from embedded.stack import start
    from embedded.state import running_stack

    run_folder = Path(os.environ[RUN_FOLDER_VARIABLE])
    with _one_at_a_time(run_folder):
        running = running_stack(run_folder / "stack")
        if running is None:
            running = start(run_folder / "stack", environ={}, durable=False, detached=True)
            _make_template(running)
    return running


def _make_template(stack: "Stack") -> None:
    _administer(stack, f"CREATE DATABASE {TEMPLATE}")
    subprocess.run(
        [sys.executable, "-m", "alembic", "-c", str(REPOSITORY / "alembic.ini"), "upgrade", "head"],
        cwd=REPOSITORY,
        env={**os.environ, "DATABASE_URL": _url_of(stack, TEMPLATE)},
        check=True,
    )


def _administer(stack: "Stack", statement: str) -> None:
    import psycopg

    with psycopg.connect(_url_of(stack, "postgres"), autocommit=True) as connection:
        connection.execute(statement.encode())


def _url_of(stack: "Stack", database: str) -> str:
    return stack.variables["DATABASE_URL"].rsplit("/", 1)[0] + f"/{database}"


@pytest.fixture(scope="session")
def worker_number() -> int:
    """Number of this test process, from 1 up; 0 when tests run in one process."""
    name = os.environ.get("PYTEST_XDIST_WORKER", "")
    return int(name.removeprefix("gw")) + 1 if name else 0


@pytest.fixture
def empty_database_url(stack: "Stack") -> Iterator[str]:
    """A database of this test's own without a table, for tests of the migrations."""
    name = f"test_{uuid.uuid4().hex}"
    _administer(stack, f"CREATE DATABASE {name}")
    yield _url_of(stack, name)
    _administer(stack, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="session")
def _worker_database_url(stack: "Stack", worker_number: int) -> str:
    name = f"worker_{worker_number}"
    _administer(stack, f"CREATE DATABASE {name} TEMPLATE {TEMPLATE}")
    return _url_of(stack, name)


@pytest.fixture
def database_url(_worker_database_url: str) -> Iterator[str]:
    """A database as the real migrations make it, empty, that no other test uses at the same time."""
    yield _worker_database_url
    _empty(_worker_database_url)


def _empty(database_url: str) -> None:
    """Empty every table; emptying is several times faster than making a database anew."""
    import psycopg

    with psycopg.connect(database_url, autocommit=True) as connection:
        # A test about crashes may leave a connection behind, and with it a lock.
        connection.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        tables = connection.execute(
            "SELECT string_agg(format('%I', tablename), ', ') FROM pg_tables"
            " WHERE schemaname = 'public' AND tablename <> 'alembic_version'"
        ).fetchone()
        assert tables is not None
        connection.execute(f"TRUNCATE {tables[0]} RESTART IDENTITY".encode())
        # As the migrations leave it.
        connection.execute(
            f"INSERT INTO tenants (id, name) VALUES ('{DEFAULT_TENANT_ID}', 'default')".encode()
        )


@pytest.fixture
def redis_url(stack: "Stack", worker_number: int) -> Iterator[str]:
    """An empty Valkey database that no other test uses at the same time."""
    import redis

    url = stack.variables["REDIS_URL"].rsplit("/", 1)[0] + f"/{worker_number}"
    yield url
    with redis.Redis.from_url(url) as connection:
        connection.flushdb()


@pytest.fixture(scope="session")
def _s3_client(stack: "Stack") -> Iterator["S3Client"]:
    import boto3
    from botocore.config import Config

    client = boto3.client(
        "s3",
        endpoint_url=stack.variables["S3_ENDPOINT_URL"],
        region_name=stack.variables["S3_REGION"],
        aws_access_key_id=stack.variables["S3_ACCESS_KEY_ID"],
        aws_secret_access_key=stack.variables["S3_SECRET_ACCESS_KEY"],
        config=Config(signature_version="s3v4", s3={"addressing_style": "path"}, proxies={}),
    )
    yield client
    client.close()


@pytest.fixture(scope="session")
def _worker_bucket(_s3_client: "S3Client", worker_number: int) -> str:
    name = f"test-{worker_number}"
    _s3_client.create_bucket(Bucket=name)
    return name


@pytest.fixture
def bucket(_s3_client: "S3Client", _worker_bucket: str) -> Iterator[str]:
    """An empty bucket that no other test uses at the same time."""
    yield _worker_bucket
    for page in _s3_client.get_paginator("list_objects_v2").paginate(Bucket=_worker_bucket):
        for entry in page.get("Contents", []):
            _s3_client.delete_object(Bucket=_worker_bucket, Key=entry["Key"])


@pytest.fixture
def service_environment(
    stack: "Stack", database_url: str, redis_url: str, bucket: str, tmp_path: Path
) -> dict[str, str]:
    """Environment variables of a service process that shall work for this test alone."""
    own = {
        "DATABASE_URL": database_url,
        "REDIS_URL": redis_url,
        "S3_BUCKET": bucket,
        "DATA_DIR": str(tmp_path / "data"),
        "API_KEY_PEPPER": TEST_PEPPER,
        "RATE_LIMIT_PER_MINUTE": "1000000",
    }
    return stack.environment() | own


@pytest.fixture
def settings(service_environment: dict[str, str]) -> "Settings":
    """Settings that point at this test's database, broker, bucket and data folder."""
    from store.settings import Settings

    return Settings.model_validate({name.lower(): value for name, value in service_environment.items()})


@pytest.fixture
def engine(settings: "Settings") -> Iterator["Engine"]:
    """Connections to this test's database."""
    from store.database import create_engine

    engine = create_engine(settings)
    yield engine
    engine.dispose()


@pytest.fixture
def tenant_id(engine: "Engine") -> Callable[[str], str]:
    """Ids of tenants by their names; one that is not there is made."""
    from store.database import server_now, transaction
    from store.tenants import ensure_tenant

    def find(name: str) -> str:
        with transaction(engine) as session:
            return ensure_tenant(session, name, now=server_now(session))

    return find


@pytest.fixture
def api_key(engine: "Engine", settings: "Settings") -> str:
    """A key of the tenant ``default`` that may do everything."""
    from store.api_keys import create_key
    from store.database import server_now, transaction

    with transaction(engine) as session:
        now, pepper = server_now(session), settings.required_pepper()
        return create_key(session, name="test", scopes=["write", "admin"], pepper=pepper, now=now).key


@pytest.fixture
def object_store(settings: "Settings") -> "ObjectStore":
    """This test's bucket."""
    from store.objects import ObjectStore

    return ObjectStore(settings)


@pytest.fixture
def eventually() -> Callable[..., Any]:
    """Wait for a state instead of a time: call a function until its result is true, and return that.

    Only where it is the time that is promised does a test say how long it may take.
    """

    def wait(condition: Callable[[], T], *, within_seconds: float = PATIENCE_SECONDS) -> T:
        deadline = monotonic() + within_seconds
        while not (result := condition()):
            assert monotonic() < deadline, f"not within {within_seconds} s; last result: {result!r}"
            sleep(0.02)
        return result

    return wait
