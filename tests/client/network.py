"""A stretch of network that loses connections, or has a proxy: a TCP relay in front of a real server."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from urllib.parse import urlsplit


def answer(status: str, body: str = "", media_type: str = "text/html") -> bytes:
    """Write what something on the way to the server answers."""
    head = f"HTTP/1.1 {status}\r\nContent-Type: {media_type}\r\nContent-Length: {len(body)}\r\n"
    return f"{head}Connection: close\r\n\r\n{body}".encode("ascii")


BAD_GATEWAY = answer("502 Bad Gateway", "<html>502 Bad Gateway</html>")
GATEWAY_TIMEOUT = answer("504 Gateway Time-out", "<html>504 Gateway Time-out</html>")
SIGN_IN = answer("200 OK", "<html>Sign in</html>")
ANOTHER_SERVICE = answer("200 OK", '{"hello": "world"}', "application/json")
REDIRECT = answer("302 Found").replace(b"\r\n\r\n", b"\r\nLocation: https://sso.example/in\r\n\r\n")
# A stream that opens and breaks before anything has happened.
CUT_STREAM = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"8\r\n: ping\n\n\r\n"
)


class Relay:
    """Relays connections to a server, and cuts those it is told to.

    Attributes
    ----------
    refuse
        So many of the next connections are closed at once.
    lose_answers
        On so many of the next connections the request gets through and the answer does not.
    cut_after
        Bytes of the next answer after which its connection is cut; None for never.
    answers
        What the next connections get, each the next one, in place of the server's answer.
    connections
        How many have been made.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._target = (parts.hostname, parts.port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.refuse = 0
        self.lose_answers = 0
        self.cut_after: int | None = None
        self.answers: list[bytes] = []
        self.connections = 0
        self._open: set[socket.socket] = set()
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def interrupt(self) -> None:
        """Cut what is connected now."""
        for connection in list(self._open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.interrupt()
        for thread in self._threads:
            thread.join()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            if self.refuse:
                self.refuse -= 1
                client.close()
                continue
            if self.answers:
                self._answer(client, self.answers.pop(0))
                continue
            thread = threading.Thread(target=self._serve, args=(client,))
            self._threads.append(thread)
            thread.start()

    @staticmethod
    def _answer(client: socket.socket, answer: bytes) -> None:
        with client, contextlib.suppress(OSError):
            client.recv(65_536)  # or the request that was not read would take the answer with it
            client.sendall(answer)
            client.shutdown(socket.SHUT_WR)
            while client.recv(65_536):
                pass

    def _serve(self, client: socket.socket) -> None:
        server = socket.create_connection(self._target)
        self._open |= {client, server}
        upwards = threading.Thread(target=self._pump, args=(client, server, None))
        upwards.start()
        limit = None
        if self.lose_answers:
            self.lose_answers -= 1
            limit = 0
        elif self.cut_after is not None:
            limit, self.cut_after = self.cut_after, None
        self._pump(server, client, limit)
        upwards.join()
        self._open -= {client, server}
        client.close()
        server.close()

    @staticmethod
    def _pump(source: socket.socket, sink: socket.socket, limit: int | None) -> None:
        """Pass bytes on until either side ends or the limit is reached, then end both."""
        with contextlib.suppress(OSError):
            while block := source.recv(65_536):
                sink.sendall(block if limit is None else block[:limit])
                if limit is not None:
                    limit -= len(block)
                    if limit <= 0:
                        break
        for side in (source, sink):
            with contextlib.suppress(OSError):
                side.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def relay_to(url: str) -> Iterator[Relay]:
    relay = Relay(url)
    try:
        yield relay
    finally:
        relay.close()
