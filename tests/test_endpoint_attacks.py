"""Attacks on the endpoint's connections and bodies: after each it answers a normal request."""

from __future__ import annotations

import gzip
import json
import socket
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.endpoint_fixtures import Endpoint, endpoint
from tests.flow_fixtures import eventually
from tests.test_endpoint import made

pytestmark = pytest.mark.slow

GOOD = {"messages": [{"id": "good", "text": "call to claim"}]}
BODY = json.dumps(GOOD).encode()
JSON = b"content-type: application/json\r\n"
CHUNKED = b"transfer-encoding: chunked\r\n\r\n"
UPGRADE = b"connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAARAAAAAAAIAAAAA\r\n"
OK, BAD, NONE = b"HTTP/1.1 200 ", b"HTTP/1.1 400 ", b""


def head(method: bytes = b"POST", target: bytes = b"/score", version: bytes = b"1.1") -> bytes:
    return method + b" " + target + b" HTTP/" + version + b"\r\nhost: localhost\r\n"


def post(body: bytes = BODY, more: bytes = b"", **line: bytes) -> bytes:
    return head(**line) + JSON + more + b"content-length: %d\r\n\r\n" % len(body) + body


HEALTH = head(b"GET", b"/health") + b"\r\n"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    with endpoint(made(tmp_path_factory.mktemp("attacks"))) as started:
        yield started


@pytest.fixture(autouse=True)
def up(running: Endpoint) -> Iterator[None]:
    """The endpoint answers after each test, and its process is the one that was started."""
    yield
    assert running.answers([{"id": "normal", "text": "a normal request"}])
    assert running.process.poll() is None
    assert [line["error"] for line in running.events("failed")] == []


def connected(running: Endpoint) -> socket.socket:
    return socket.create_connection(("127.0.0.1", running.port), timeout=60)


def received(connection: socket.socket, responses: int = 1) -> bytes:
    """What the server sends until it closes the connection or has sent that many responses."""
    content = b""
    with suppress(ConnectionError):
        while (more := connection.recv(1 << 16)) and (content := content + more).count(b"HTTP/1.1 ") <= responses:
            if content.count(b"HTTP/1.1 ") == responses and content.endswith((b"}", b"received.")):
                break
    return content


# name: what is sent, how the response begins.
REQUESTS: dict[str, tuple[bytes, bytes]] = {
    "HTTP/1.0": (post(version=b"1.0"), OK),
    "HTTP/0.9": (b"GET /health\r\n\r\n", b"HTTP/1.1 421 "),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(20), BAD),
    "TLS": (bytes.fromhex("16030100c8010000c40303") + b"x" * 200, BAD),
    "an absolute URI": (post(target=b"http://localhost/score"), OK),
    "no host": (b"GET /health HTTP/1.1\r\n\r\n", b"HTTP/1.1 421 "),
    "another host": (b"GET /health HTTP/1.1\r\nhost: localhost.example\r\n\r\n", b"HTTP/1.1 421 "),
    "another host by its port": (b"GET /health HTTP/1.1\r\nhost: elsewhere:8300\r\n\r\n", b"HTTP/1.1 421 "),
    "an upgrade to HTTP/2 with a body": (post(more=UPGRADE), OK),
    "an upgrade to HTTP/2": (head(b"GET", b"/health") + UPGRADE + b"\r\n", OK),
    "an upgrade to WebSocket": (head(b"GET", b"/health") + b"connection: upgrade\r\nupgrade: websocket\r\n\r\n", OK),
    "a proxy": (b"CONNECT localhost:443 HTTP/1.1\r\nhost: localhost\r\n\r\n", BAD),
    "no path": (head(b"OPTIONS", b"*") + b"\r\n", b"HTTP/1.1 404 "),
    "a path of NULs": (head(b"GET", b"/%00%ff") + b"\r\n", b"HTTP/1.1 404 "),
    "a path beyond ASCII": (head(b"GET", b"/\xff") + b"\r\n", BAD),
    "an unknown method": (head(b"BREW") + b"\r\n", BAD),
    "a negative length": (head() + JSON + b"content-length: -5\r\n\r\n", BAD),
    "a length beyond 64 bits": (head() + JSON + b"content-length: 99999999999999999999\r\n\r\n", BAD),
    "a length of 1 TB": (head() + JSON + b"content-length: 1000000000000\r\n\r\n", b"HTTP/1.1 413 "),
    "two lengths": (head() + JSON + b"content-length: 5\r\ncontent-length: 6\r\n\r\n", BAD),
    "a length and chunks": (head() + JSON + b"content-length: 5\r\n" + CHUNKED + b"0\r\n\r\n", BAD),
    "a chunk of a negative size": (head() + JSON + CHUNKED + b"-1\r\n", BAD),
    "chunks": (head() + JSON + CHUNKED + b"%x\r\n" % len(BODY) + BODY + b"\r\n0\r\n\r\n", OK),
    "a NUL in a header": (head(b"GET", b"/health") + b"x: a\0b\r\n\r\n", BAD),
    "a header without a name": (head(b"GET", b"/health") + b": a\r\n\r\n", BAD),
    "a header of 1 MB": (head(b"GET", b"/health") + b"x: " + b"a" * 1_000_000, b"HTTP/1.1 431 "),
    "a path of 1 MB": (b"GET /" + b"a" * 1_000_000, b"HTTP/1.1 431 "),
    "50,000 headers": (head(b"GET", b"/health") + b"a: b\r\n" * 50_000, b"HTTP/1.1 431 "),
    "UTF-16": (post(BODY.decode().encode("utf-16")), BAD),
    "another charset": (post(more=b"content-type: text/plain\r\n").replace(JSON, b""), b"HTTP/1.1 415 "),
    "Latin-1": (post().replace(b"json\r\n", b"json; charset=ISO-8859-1\r\n"), b"HTTP/1.1 415 "),
    "UTF-8 in quotes": (post().replace(b"json\r\n", b'JSON ; Charset="UTF-8"\r\n'), OK),
    "gzip": (post(gzip.compress(BODY), b"content-encoding: gzip\r\n"), b"HTTP/1.1 415 "),
    "gzip that is not named": (post(gzip.compress(BODY)), BAD),
    "an id of 1 MB": (post(BODY.replace(b"good", b"a" * 1_000_000)), b"HTTP/1.1 422 "),
    "a number of 1 MB": (post(BODY.replace(b'"good"', b"9" * 1_000_000)), BAD),
    "a key twice": (post(b'{"messages": [{"id": "1", "text": "a", "text": "b"}]}'), b"HTTP/1.1 422 "),
    "100,000 entries": (post(b'{"messages": [%s{}]}' % (b"{}," * 100_000)), b"HTTP/1.1 422 "),
}


@pytest.mark.parametrize("name", REQUESTS)
def test_an_odd_request_gets_its_response(running: Endpoint, name: str) -> None:
    content, expected = REQUESTS[name]
    with connected(running) as connection:
        # Of an oversized head, the server does not read all.
        with suppress(ConnectionError):
            connection.sendall(content)
        response = received(connection)
    assert response.startswith(expected) or (response == NONE and b" 431 " in expected), response


@pytest.mark.parametrize("count", [2, 2000])
def test_pipelined_requests_are_answered_in_order(running: Endpoint, count: int) -> None:
    bodies = [BODY.replace(b"good", b"pipelined %d" % at) for at in range(2)]
    with connected(running) as connection:
        connection.sendall(post(bodies[0]) + post(bodies[1]) + HEALTH * count)
        response = received(connection, count + 2)
    assert response.count(OK) == count + 2
    assert response.index(b"pipelined 0") < response.index(b"pipelined 1") < response.index(b'"status"')


@pytest.mark.parametrize("content", [b"", post()[:40], post()[:-5], post(), post() + HEALTH])
@pytest.mark.parametrize("half", [True, False])
def test_a_connection_may_end_at_any_moment(running: Endpoint, content: bytes, half: bool) -> None:
    with connected(running) as connection:
        connection.sendall(content)
        if half:
            connection.shutdown(socket.SHUT_WR)
            received(connection)


def test_a_thousand_connections_are_answered_at_once(running: Endpoint) -> None:
    connections = [connected(running) for _ in range(1000)]
    try:
        for at, connection in enumerate(connections):
            connection.sendall(post(BODY.replace(b"good", b"one of many %d" % at)))
        assert {received(connection)[: len(OK)] for connection in connections} == {OK}
    finally:
        for connection in connections:
            connection.close()


@dataclass
class Slow:
    """A client that sends some bytes, then others again and again, and reads responses or never."""

    first: bytes
    then: bytes
    expected: bytes = b""
    reads: bool = True
    content: bytes = b""
    closed: bool = False

    def connect(self, running: Endpoint) -> None:
        self.connection = connected(running)
        self.connection.sendall(self.first)
        self.connection.setblocking(False)

    def step(self) -> bool:
        """Send and read a little; returns whether the server has closed the connection."""
        try:
            if not self.closed and self.then:
                self.connection.send(self.then)
            while not self.closed and self.reads:
                more = self.connection.recv(1 << 16)
                self.content += more
                self.closed = not more
        except BlockingIOError:
            pass
        except ConnectionError:
            self.closed = True
        return self.closed


def slow_clients() -> dict[str, Slow]:
    long = b"content-length: 1000000\r\n\r\n"
    return {
        "nothing": Slow(b"", b""),
        "a head byte by byte": Slow(b"", b"G"),
        "headers without end": Slow(head(), b"a: b\r\n"),
        "a body byte by byte": Slow(head() + JSON + long, b"a", b"HTTP/1.1 408 "),
        "a body that stops": Slow(head() + JSON + long + BODY, b"", b"HTTP/1.1 408 "),
        "chunks without end": Slow(head() + JSON + CHUNKED, b"1\r\na\r\n", b"HTTP/1.1 408 "),
        "a body to a path without one": Slow(head(b"GET", b"/health") + long, b"a", OK),
        "a body after an error": Slow(head() + long, b"a", b"HTTP/1.1 415 "),
        "a trailer without end": Slow(head() + JSON + CHUNKED + b"0\r\n", b"a: b\r\n"),
        "nothing after a request": Slow(HEALTH, b"", OK),
        "empty lines after a request": Slow(HEALTH, b"\r\n", OK),
        "no reading": Slow(b"", (head(b"GET", b"/openapi.json") + b"\r\n") * 10, reads=False),
    }


def test_slow_clients_are_disconnected(running: Endpoint) -> None:
    clients = slow_clients()
    for client in clients.values():
        client.connect(running)
    try:
        assert running.answers([{"id": "among slow ones", "text": "hello"}])
        eventually(lambda: sum(client.step() for client in clients.values()) == len(clients))
    finally:
        for client in clients.values():
            client.connection.close()
    assert {
        name: client.content[:20] for name, client in clients.items() if not client.content.startswith(client.expected)
    } == {}


PIECES = [b"NaN", b"-0", b"1e999", b"\\ud800", b"\\u0000", b"\0", b"\xff", b"[" * 300, b'"id":1,', b"{}", b'"']


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A valid body with some of its bytes replaced."""
    start = draw(st.integers(0, len(BODY)))
    end = draw(st.integers(start, min(len(BODY), start + 10)))
    pieces = st.sampled_from(
        [b"NaN", b"-0", b"1e999", b"\\ud800", b"\\u0000", b"\0", b"\xff", b"[" * 300, b'"id":1,', b"{}", b'"']
    )
    return BODY[:start] + draw(pieces | st.binary(max_size=10)) + BODY[end:]


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(content=damaged() | st.binary(max_size=300))
def test_a_damaged_body_is_refused_or_valid(running: Endpoint, content: bytes) -> None:
    response = running.client.post("/score", content=content, headers={"content-type": "application/json"})
    body: dict[str, Any] = response.json()
    # Another text may have been answered under the id.
    assert response.status_code in (200, 400, 409, 422)
    assert set(body) == ({"answers"} if response.status_code == 200 else {"detail", "errors"})


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(content=st.binary(max_size=300), at=st.integers(0, len(post())), size=st.integers(0, 20))
def test_random_bytes_on_a_connection_harm_nobody(running: Endpoint, content: bytes, at: int, size: int) -> None:
    with connected(running) as connection:
        connection.sendall(post()[:at] + content + post()[at + size :])
        connection.shutdown(socket.SHUT_WR)
        assert received(connection, 10**6).startswith((NONE, b"HTTP/1.1 "))
    assert running.client.get("/health").status_code == 200
