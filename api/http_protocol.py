"""Uvicorn's fast HTTP parser with a limit.

The parser collects a header, or what follows a chunked body, for as long as it keeps coming: a client that
never ends one fills the memory, and every block that is added costs more than the one before. Here a
connection is closed once too much has come since anything could be passed on.
"""

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_UNPARSED_BYTES = 2**16


class BoundedHttpToolsProtocol(HttpToolsProtocol):
    """Counts the bytes that came since the last head, piece of a body or end of a request."""

    _unparsed_bytes = 0

    def data_received(self, data: bytes) -> None:
        """Parse what came, unless too much of it has led to nothing."""
        self._unparsed_bytes += len(data)
        super().data_received(data)
        if self._unparsed_bytes > MAX_UNPARSED_BYTES and not self.transport.is_closing():
            self.send_400_response("The head of the request is too large.")

    def on_headers_complete(self) -> None:
        """Begin to count anew."""
        self._unparsed_bytes = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Begin to count anew."""
        self._unparsed_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Begin to count anew."""
        self._unparsed_bytes = 0
        super().on_message_complete()
