"""Servers that go away in the middle of a job and come back, by way of a door that the tests shut."""

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from sqlalchemy.engine import make_url

from store.database import create_engine
from store.objects import ObjectStore

Eventually = Callable[..., Any]


class Door:
    """A port that leads to a server while it is open; shutting it cuts every connection."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._lock = threading.Lock()
        self._connections: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._is_open = False
        self.port = 0
        self.open()

    def open(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self.port = self._listener.getsockname()[1]
        self._is_open = True
        self._begin(self._accept, self._listener)

    def shut(self) -> None:
        if not self._is_open:
            return
        with self._lock:
            self._is_open = False
            # A thread that waits on a closed socket keeps it alive; shutdown wakes it.
            for used in (self._listener, *self._connections):
                with contextlib.suppress(OSError):
                    used.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for used in (self._listener, *self._connections):
            used.close()
        self._threads, self._connections = [], []

    def _begin(self, work: Callable[..., None], *arguments: socket.socket) -> None:
        thread = threading.Thread(target=work, args=arguments)
        self._threads.append(thread)
        thread.start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            with self._lock:
                if not self._is_open:
                    client.close()
                    return
                server = socket.create_connection(self._target)
                self._connections += [client, server]
                self._begin(self._copy, client, server)
                self._begin(self._copy, server, client)

    @staticmethod
    def _copy(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while block := source.recv(65_536):
                target.sendall(block)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)


@pytest.fixture
def doors() -> Iterator[Callable[[str | None, int | None], Door]]:
    made: list[Door] = []

    def make(host: str | None, port: int | None) -> Door:
        assert host is not None
        assert port is not None
        made.append(Door(host, port))
        return made[-1]

    yield make
    for door in made:
        door.shut()


def test_a_job_survives_a_database_that_goes_away_again_and_again(
    workplace: Any,
    doors: Callable[..., Door],
    send_on: Callable[[str, int], None],
    eventually: Eventually,
    caplog: pytest.LogCaptureFixture,
) -> None:
    url = make_url(workplace.settings.database_url)
    door = doors(url.host, url.port)
    through = url.set(host="127.0.0.1", port=door.port).render_as_string(hide_password=False)
    engine = create_engine(workplace.settings.model_copy(update={"database_url": through}))
    job_id = workplace.submit_job()
    direct, workplace.engine = workplace.engine, engine
    running = workplace.begin(job_id, "pauses")
    eventually(lambda: running.running())
    eventually(lambda: workplace.trainer_pid(job_id))
    workplace.engine = direct
    eventually(lambda: 2 in workplace.stored_steps(job_id))
    door.shut()
    send_on(job_id, 3)
    eventually(lambda: "step-00000004" in workplace.trainer_said(job_id))
    eventually(lambda: "no heartbeat" in caplog.text and "events not recorded yet" in caplog.text)
    door.open()
    eventually(lambda: 4 in workplace.stored_steps(job_id))
    door.shut()
    caplog.clear()
    send_on(job_id, 5)
    eventually(lambda: workplace.trainer_pid(job_id) is None)
    eventually(lambda: "will be repeated" in caplog.text)
    door.open()
    assert running.result(timeout=30) == "succeeded"
    engine.dispose()
    events = workplace.events(job_id)
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    assert [e.data["step"] for e in events if e.type == "metrics"] == [1, 2, 3, 4, 5, 6]
    assert workplace.job(job_id).attempt == 1


def test_uploads_wait_for_an_object_store_that_went_away(
    workplace: Any,
    doors: Callable[..., Door],
    send_on: Callable[[str, int], None],
    eventually: Eventually,
    caplog: pytest.LogCaptureFixture,
) -> None:
    address = urlsplit(workplace.settings.s3_endpoint_url)
    door = doors(address.hostname, address.port)
    changed = workplace.settings.model_copy(update={"s3_endpoint_url": f"http://127.0.0.1:{door.port}"})
    workplace.objects = ObjectStore(changed)
    job_id = workplace.submit_job()
    running = workplace.begin(job_id, "pauses")
    eventually(lambda: 2 in workplace.stored_steps(job_id))
    door.shut()
    send_on(job_id, 3)
    eventually(lambda: "will be repeated" in caplog.text)
    beat = workplace.job(job_id).lease_expires_at
    eventually(lambda: workplace.job(job_id).lease_expires_at > beat)
    send_on(job_id, 5)
    eventually(lambda: workplace.trainer_pid(job_id) is None)
    door.open()
    assert running.result(timeout=60) == "succeeded"
    assert [e.data["step"] for e in workplace.events(job_id) if e.type == "sample"] == [3]


def test_a_student_that_cannot_be_stored_fails_the_job_with_a_reason(
    workplace: Any, doors: Callable[..., Door], send_on: Callable[[str, int], None], eventually: Eventually
) -> None:
    address = urlsplit(workplace.settings.s3_endpoint_url)
    door = doors(address.hostname, address.port)
    changed = workplace.settings.model_copy(update={"s3_endpoint_url": f"http://127.0.0.1:{door.port}"})
    workplace.objects = ObjectStore(changed)
    job_id = workplace.submit_job()
    running = workplace.begin(job_id, "pauses", upload_patience_seconds=0.5)
    eventually(lambda: 2 in workplace.stored_steps(job_id))
    send_on(job_id, 3)
    eventually(lambda: 4 in workplace.stored_steps(job_id))
    door.shut()
    send_on(job_id, 5)
    assert running.result(timeout=60) == "failed"
    job = workplace.job(job_id)
    assert (job.status, job.reason) == ("failed", "storage_unavailable")
    assert job.hint
    door.open()
