"""Attacks on the endpoint's connections and bodies: after each it answers a normal request."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.bad_requests import (
    BODY,
    CHUNKED,
    GIVEN,
    JSON,
    NONE,
    REQUESTS,
    connected,
    head,
    post,
    received,
    wrong_response,
)
from tests.endpoint_fixtures import Endpoint, endpoint
from tests.flow_fixtures import eventually
from tests.test_endpoint import made

pytestmark = pytest.mark.slow

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


@pytest.mark.parametrize("name", REQUESTS)
def test_an_odd_request_gets_its_response(running: Endpoint, name: str) -> None:
    assert wrong_response(running, name) == []


@pytest.mark.parametrize("count", [2, 2000])
def test_pipelined_requests_are_answered_in_order(running: Endpoint, count: int) -> None:
    bodies = [BODY.replace(b"good", b"pipelined %d" % at) for at in range(2)]
    with connected(running) as connection:
        connection.sendall(post(bodies[0]) + post(bodies[1]) + HEALTH * count)
        response = received(connection, count + 2)
    assert response.count(GIVEN) == count + 2
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
        assert {received(connection)[: len(GIVEN)] for connection in connections} == {GIVEN}
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
        "a body to a path without one": Slow(head(b"GET", b"/health") + long, b"a", GIVEN),
        "a body after an error": Slow(head() + long, b"a", b"HTTP/1.1 415 "),
        "a trailer without end": Slow(head() + JSON + CHUNKED + b"0\r\n", b"a: b\r\n"),
        "nothing after a request": Slow(HEALTH, b"", GIVEN),
        "empty lines after a request": Slow(HEALTH, b"\r\n", GIVEN),
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
