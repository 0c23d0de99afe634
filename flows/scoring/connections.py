"""Connections of clients: uvicorn's protocol with limits on the time of a client and on the head of a request."""

from __future__ import annotations

import asyncio

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_BYTES = 1 << 16
# Longer than a body may take, so that a slow one gets its error first.
SECONDS = 35.0
TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"


class Connection(HttpToolsProtocol):
    """A connection that is closed if its client takes too long to send a request, to read a response or to go on.

    Uvicorn only closes a connection on which nothing arrives between requests.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for the first request."""
        super().connection_made(transport)
        self.in_message, self.in_head, self.head_bytes = False, True, 0
        self.deadline: asyncio.TimerHandle | None = None
        self.restart_time()

    def restart_time(self) -> None:
        """Restart the time of the client, unless it waits for this server."""
        self.stop_time()
        answered = self.cycle is None or self.cycle.response_complete
        if self.flow.write_paused or (not self.flow.read_paused and (self.in_message or answered)):
            self.deadline = self.loop.call_later(SECONDS, self.close)

    def stop_time(self) -> None:
        """Give the client all the time."""
        if self.deadline is not None:
            self.deadline.cancel()

    def data_received(self, data: bytes) -> None:
        """Parse more bytes, and close the connection if a head has too many or if they are no request."""
        self._unset_keepalive_if_required()
        headers = self.headers
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self.without_upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserError:
            self.send_400_response("Invalid HTTP request received.")
        # Bytes of several messages are not those of one head.
        if self.in_head and self.headers is headers:
            self.head_bytes += len(data)
            if self.head_bytes > HEAD_BYTES and not self.transport.is_closing():
                self.transport.write(TOO_LARGE)
                self.transport.close()

    def without_upgrade(self, rest: bytes) -> None:
        """Read a request again without its wish for another protocol; the parser would not read its body.

        HTTP lets a server ignore the wish. Clients such as Java's add it to every request.
        """
        method = self.parser.get_method()
        if method == b"CONNECT":
            self.send_400_response("This server is no proxy.")
            return
        headers = [name + b": " + value + b"\r\n" for name, value in self.headers if name != b"upgrade"]
        self.parser = httptools.HttpRequestParser(self)
        self.data_received(b"".join([method, b" ", self.url, b" HTTP/1.1\r\n", *headers, b"\r\n", rest]))

    def on_message_begin(self) -> None:
        """Begin a request."""
        super().on_message_begin()
        self.in_message, self.in_head, self.head_bytes = True, True, 0
        self.restart_time()

    def on_headers_complete(self) -> None:
        """End the head of a request."""
        self.in_head = False
        if not self.parser.should_upgrade():
            super().on_headers_complete()
            self.restart_time()

    def on_message_complete(self) -> None:
        """End a request."""
        if not self.parser.should_upgrade():
            super().on_message_complete()
            self.in_message = False
            self.restart_time()

    def on_response_complete(self) -> None:
        """End a response."""
        super().on_response_complete()
        self.restart_time()

    def pause_writing(self) -> None:
        """Wait for the client to read."""
        super().pause_writing()
        self.restart_time()

    def resume_writing(self) -> None:
        """Write on."""
        super().resume_writing()
        self.restart_time()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        super().connection_lost(exc)
        self.stop_time()

    def close(self) -> None:
        """Close the connection, without what the client does not read."""
        if self.transport.get_write_buffer_size():
            self.transport.abort()
        else:
            self.transport.close()
