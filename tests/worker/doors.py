"""A door to a server that a test can shut, as if the server had gone away."""

import contextlib
import socket
import threading
from collections.abc import Callable


class Door:
    """A port that leads to a server while it is open; shutting it cuts every connection."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._lock = threading.Lock()
        self._connections: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._is_open = False
        self._bytes_left: int | None = None
        self.port = 0
        self.open()

    def open(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self.port = self._listener.getsockname()[1]
        self._is_open = True
        self._begin(self._accept, self._listener)

    def shut_after(self, count: int) -> None:
        """Shut the door in the middle of things, once so many more bytes have gone to the server."""
        self._bytes_left = count

    @property
    def is_open(self) -> bool:
        return self._is_open

    def _cut(self) -> None:
        with self._lock:
            self._is_open, self._bytes_left = False, None
            # A thread that waits on a closed socket keeps it alive; shutdown wakes it.
            for used in (self._listener, *self._connections):
                with contextlib.suppress(OSError):
                    used.shutdown(socket.SHUT_RDWR)

    def shut(self) -> None:
        self._cut()
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
                self._begin(self._send, client, server)
                self._begin(self._copy, server, client)

    def _send(self, client: socket.socket, server: socket.socket) -> None:
        self._copy(client, server, self._limited)

    def _limited(self, block: bytes) -> bytes:
        if self._bytes_left is None:
            return block
        passed = block[: self._bytes_left]
        self._bytes_left -= len(passed)
        if not self._bytes_left:
            self._cut()
        return passed

    @staticmethod
    def _copy(
        source: socket.socket, target: socket.socket, limited: Callable[[bytes], bytes] = bytes
    ) -> None:
        with contextlib.suppress(OSError):
            while block := source.recv(65_536):
                target.sendall(limited(block))
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)
