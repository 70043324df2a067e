"""The broker is spoken to over TLS where its address says so, and has to prove that it is who it says."""

import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from store.errors import UnavailableError
from store.queue import count_hints, make_celery, ping, send_job_hint
from store.settings import Settings


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("", {"ssl_cert_reqs": ssl.CERT_REQUIRED}),
        ("?ssl_cert_reqs=required", {"ssl_cert_reqs": ssl.CERT_REQUIRED}),
        ("?ssl_cert_reqs=none", {"ssl_cert_reqs": ssl.CERT_NONE}),
        # The client's own default is to require a certificate.
        ("?ssl_ca_certs=/etc/ca.pem", {"ssl_ca_certs": "/etc/ca.pem"}),
    ],
)
def test_messages_go_to_a_server_with_a_certificate_unless_the_address_says_otherwise(
    options: str, expected: dict[str, object]
) -> None:
    app = make_celery(f"rediss://:word@queue:6379/0{options}")
    with app.connection_for_read() as reading, app.connection_for_write() as writing:
        assert reading.ssl == writing.ssl == expected


def test_an_address_without_tls_has_none() -> None:
    with make_celery("redis://:word@queue:6379/0").connection_for_read() as connection:
        assert not connection.ssl


@pytest.fixture
def impostor(tmp_path: Path) -> Iterator[str]:
    """Address of a server whose certificate nobody signed but itself."""
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(
        [
            *(
                "openssl",
                "req",
                "-x509",
                "-newkey",
                "rsa:2048",
                "-nodes",
                "-days",
                "2",
                "-subj",
                "/CN=localhost",
            ),
            *("-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(certificate)),
        ],
        check=True,
        capture_output=True,
    )
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(certificate, key)
    with closing(socket.create_server(("127.0.0.1", 0))) as listening:

        def serve() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = listening.accept()
                    with closing(connection), suppress(ssl.SSLError, ConnectionError):
                        serving.wrap_socket(connection, server_side=True).close()

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"rediss://:word@localhost:{listening.getsockname()[1]}/0"
        listening.shutdown(socket.SHUT_RDWR)
        thread.join()


def test_nothing_is_told_to_a_server_that_proves_nothing(impostor: str) -> None:
    deceived = Settings(database_url="postgresql://nowhere/nothing", redis_url=impostor)
    with pytest.raises(UnavailableError, match="certificate verify failed"):
        ping(deceived)
    with pytest.raises(UnavailableError, match="certificate verify failed"):
        count_hints(deceived, "cpu")
    with pytest.raises(UnavailableError, match="certificate verify failed"):
        send_job_hint(deceived, "job", "cpu")
