"""Requests on a user's behalf: where they may go, how much they read, how long they take."""

import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from store.addresses import parse_networks
from store.errors import DestinationFailedError, DestinationRefusedError, InvalidInputError
from store.outgoing import OutgoingAnswer, OutgoingSender, check_url
from tests.store.receivers import Receiver, receiving

LOOPBACK = parse_networks("127.0.0.0/8,::1/128")


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


def post(sender: OutgoingSender, url: str, *, seconds: float = 5, most: int = 1_000) -> OutgoingAnswer:
    return sender.post(
        url, content=b"{}", headers={"X-Own": "yes"}, timeout_seconds=seconds, max_answer_bytes=most
    )


def test_a_request_arrives_with_its_headers_and_its_answer_is_read(receiver: Receiver) -> None:
    receiver.answers = [(201, b"thanks", {})]
    answer = post(OutgoingSender(LOOPBACK), receiver.url("localhost"))
    assert answer == OutgoingAnswer(201, b"thanks")
    [request] = receiver.received
    assert (request.path, request.body, request.headers["X-Own"]) == ("/hook", b"{}", "yes")
    assert request.headers["Host"] == f"localhost:{receiver.port}"


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "localhost",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0177.0.0.1",
        "0",
        "[::1]",
        "[::ffff:127.0.0.1]",
    ],
)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_loopback_is_refused_in_every_form_and_never_reached(
    receiver: Receiver, host: str, scheme: str
) -> None:
    with pytest.raises(DestinationRefusedError, match=r"public internet|not a URL"):
        post(OutgoingSender(), f"{scheme}://{host}:{receiver.port}/")
    assert receiver.received == []


def test_a_name_that_also_leads_inside_is_refused(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = [["93.184.215.14", "127.0.0.1"], ["127.0.0.1", "93.184.215.14"]]
    for addresses in answers:
        _resolve_to(monkeypatch, addresses)
        with pytest.raises(DestinationRefusedError):
            post(OutgoingSender(), f"https://two-faced.example:{receiver.port}/")
    assert receiver.received == []


def test_the_name_is_looked_up_once_and_the_checked_address_is_called(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A resolver that says another thing the second time has no second time."""
    asked = _resolve_to(monkeypatch, ["127.0.0.1"], then=["10.0.0.1"])
    assert post(OutgoingSender(LOOPBACK), f"http://rebinding.example:{receiver.port}/").status == 204
    assert asked == ["rebinding.example"]
    assert receiver.received[0].headers["Host"] == f"rebinding.example:{receiver.port}"


def _resolve_to(
    monkeypatch: pytest.MonkeyPatch, addresses: list[str], then: list[str] | None = None
) -> list[str]:
    """Give names addresses, as a name server that an attacker runs would."""
    asked: list[str] = []
    real = socket.getaddrinfo

    def getaddrinfo(host: Any, port: Any, *arguments: Any, **more: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else host
        if not name.endswith(".example"):
            return real(host, port, *arguments, **more)
        found = addresses if not asked or then is None else then
        asked.append(name)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in found]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return asked


def test_plain_http_goes_nowhere_but_into_allowed_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    _resolve_to(monkeypatch, ["93.184.215.14"])
    with pytest.raises(DestinationRefusedError, match="HTTPS only"):
        post(OutgoingSender(LOOPBACK), "http://public.example/")


def test_a_redirect_is_not_followed(receiver: Receiver) -> None:
    receiver.answers = [(307, b"", {"Location": "/elsewhere"})]
    assert post(OutgoingSender(LOOPBACK), receiver.url()).status == 307
    assert [request.path for request in receiver.received] == ["/hook"]


def test_of_a_long_answer_the_beginning_is_read(receiver: Receiver) -> None:
    receiver.answers = [(200, b"x" * 5_000_000, {})]
    assert post(OutgoingSender(LOOPBACK), receiver.url(), most=100).body == b"x" * 100


@pytest.mark.parametrize("drip", [b"H", b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n"])
def test_an_answer_that_drips_ends_at_the_deadline(drip: bytes) -> None:
    """However often a byte comes, in the headers or in the body, the whole has one deadline."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        stop = threading.Event()

        def drip_slowly() -> None:
            connection, _ = server.accept()
            with connection:
                connection.sendall(drip)
                while not stop.wait(0.05):
                    try:
                        connection.sendall(b"x")
                    except OSError:
                        return

        thread = threading.Thread(target=drip_slowly, daemon=True)
        thread.start()
        began = time.monotonic()
        with pytest.raises(DestinationFailedError, match="No answer within"):
            post(OutgoingSender(LOOPBACK), f"http://127.0.0.1:{server.getsockname()[1]}/", seconds=0.5)
        assert 0.4 < time.monotonic() - began < 20
        stop.set()
        thread.join(10)


@pytest.mark.parametrize("answer", [b"", b"what?\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nx"])
def test_what_is_no_answer_is_a_failure(answer: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer_once() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65_536)
                connection.sendall(answer)

        thread = threading.Thread(target=answer_once, daemon=True)
        thread.start()
        with pytest.raises(DestinationFailedError):
            post(OutgoingSender(LOOPBACK), f"http://127.0.0.1:{server.getsockname()[1]}/")
        thread.join(10)


def test_a_closed_port_and_an_unknown_name_are_failures() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(DestinationFailedError, match="connection failed"):
        post(OutgoingSender(LOOPBACK), f"http://127.0.0.1:{port}/")
    with pytest.raises(DestinationFailedError, match="cannot be resolved"):
        post(OutgoingSender(LOOPBACK), "https://no-such-name.invalid/")


def test_the_certificate_must_be_of_the_name_and_not_of_the_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=good"),
            *("-addext", "subjectAltName=DNS:good.example", "-keyout", key, "-out", certificate),
        ],
        check=True,
        capture_output=True,
    )
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(certificate, key)
    sender = OutgoingSender(LOOPBACK, ssl.create_default_context(cafile=str(certificate)))
    _resolve_to(monkeypatch, ["127.0.0.1"])
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer_twice() -> None:
            for _ in range(2):
                connection, _ = server.accept()
                try:
                    with serving.wrap_socket(connection, server_side=True) as secured:
                        received = b""
                        while not received.endswith(b"{}"):  # what is left unread would break the answer off
                            received += secured.recv(65_536)
                        secured.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")
                except OSError:
                    connection.close()

        thread = threading.Thread(target=answer_twice, daemon=True)
        thread.start()
        port = server.getsockname()[1]
        assert post(sender, f"https://good.example:{port}/").status == 204
        with pytest.raises(DestinationFailedError, match="certificate"):
            post(sender, f"https://other.example:{port}/")
        thread.join(10)


@pytest.mark.parametrize(
    "url",
    [
        *(
            "",
            "nothing",
            "//x.com",
            "ftp://x.com/",
            "file:///etc/passwd",
            "http://x.com/",
            "https://",
            "https:///x",
        ),
        *("https://user:word@x.com/", "https://x.com/#here", "https://x.com:0/", "https://x.com:99999/"),
        *(
            "https://127.0.0.1/",
            "https://[::1]/",
            "https://0x7f.1/",
            "https://169.254.169.254/latest/meta-data",
        ),
        *(
            "https://10.0.0.8:8443/",
            "https://[::ffff:10.0.0.1]/",
            "https://[::1/",
            "https://x.com/" + "a" * 2_000,
        ),
    ],
    ids=lambda url: url[:40],
)
def test_what_is_no_destination_is_refused_at_the_door(url: str) -> None:
    with pytest.raises(InvalidInputError) as refusal:
        check_url(url, [], field="url")
    assert refusal.value.field == "url"


def test_a_destination_comes_back_in_its_normal_form() -> None:
    assert check_url("HTTPS://Example.COM/a?b=c", [], field="url") == "https://example.com/a?b=c"
    assert check_url("http://127.0.0.1:99/", LOOPBACK, field="url") == "http://127.0.0.1:99/"
