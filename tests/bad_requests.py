"""Bad requests to the endpoint: bodies that are no messages, and bytes that are no request or an odd one."""

from __future__ import annotations

import gzip
import json
import socket
from contextlib import suppress

from tests.endpoint_fixtures import Endpoint


def body(*messages: object) -> bytes:
    return json.dumps({"messages": messages}).encode()


OK = {"id": "fine", "text": "fine"}
MANY = [{"id": f"m{at}", "text": "a"} for at in range(1001)]
BODIES: dict[str, tuple[bytes, int, str]] = {
    "no JSON": (b"hello", 400, "the body is not JSON in UTF-8: "),
    "nothing": (b"", 400, "the body is not JSON in UTF-8: "),
    "half a body": (body(OK)[:-3], 400, "the body is not JSON in UTF-8: "),
    "Latin-1": ('{"messages": [{"id": "é", "text": "é"}]}'.encode("latin-1"), 400, "the body is not JSON in UTF-8: "),
    "UTF-16": (body(OK).decode().encode("utf-16"), 400, "the body is not JSON in UTF-8: "),
    "a lone surrogate": (b'{"messages": [{"id": "1", "text": "a\\ud800"}]}', 400, "the body is not JSON in UTF-8: "),
    "deep nesting": (b"[" * 100_000, 400, "the body is not JSON in UTF-8: "),
    "a list": (json.dumps([OK]).encode(), 422, "the body is not an object; expected "),
    "null": (b"null", 422, "the body is not an object; expected "),
    "no messages": (b"{}", 422, "no key 'messages'; expected "),
    "an empty list": (body(), 422, "no messages; expected "),
    "an unknown key": (json.dumps({"messages": [OK], "model": "x"}).encode(), 422, "unknown key 'model'; expected "),
    "an object of messages": (b'{"messages": {"1": "a"}}', 422, "the messages are not a list of objects; expected "),
    "a text for a message": (body(OK, "text"), 422, "entry 1: is not an object with id and text"),
    "an unknown key of a message": (body({**OK, "lang": "en"}), 422, "entry 0: unknown key 'lang'; expected id and text"),
    "no id": (body(OK, {"text": "a"}), 422, "entry 1: no id"),
    "no text": (body({"id": "1"}), 422, "entry 0: no text"),
    "null as text": (body({"id": "1", "text": None}), 422, "entry 0: the text is not a string"),
    "a number as text": (body({"id": "1", "text": 1}), 422, "entry 0: the text is not a string"),
    "true as id": (body({"id": True, "text": "a"}), 422, "entry 0: the id is not a string or an integer"),
    "a fraction as id": (body({"id": 1.5, "text": "a"}), 422, "entry 0: the id is not a string or an integer"),
    "NaN as id": (b'{"messages": [{"id": NaN, "text": "a"}]}', 422, "entry 0: the id is not a string or an integer"),
    "NaN as text": (b'{"messages": [{"id": 1, "text": NaN}]}', 422, "entry 0: the text is not a string"),
    "the word NaN as id": (body({"id": "NaN", "text": "a"}), 422, "entry 0: the id is NaN"),
    "an empty id": (body({"id": "", "text": "a"}), 422, "entry 0: no id"),
    "an id beyond 64 bits": (body({"id": 10**30, "text": "a"}), 422, "entry 0: the id is a number beyond 64 bits"),
    "an empty text": (body(OK, {"id": "1", "text": ""}), 422, "entry 1: the text is blank"),
    "a blank text": (body({"id": "1", "text": " \n\u00a0"}), 422, "entry 0: the text is blank"),
    "a NUL": (body({"id": "1", "text": "a\0b"}), 422, "entry 0: the text has a NUL character"),
    "a long text": (
        body({"id": "1", "text": "a" * 100_001}),
        422,
        "entry 0: the text has 100,001 characters, more than 100,000",
    ),
    "an id twice": (body(OK, OK), 422, "entry 1: has the id of entry 0; expected different ids in a request"),
    "a number and its text": (body({"id": 1, "text": "a"}, {"id": "1", "text": "b"}), 422, "entry 1: has the id of entry 0"),
    "a key twice": (
        b'{"messages": [{"id": "1", "text": "a", "text": "b"}]}',
        422,
        "entry 0: the key 'text' occurs twice",
    ),
    "messages twice": (
        b'{"messages": [{"id": "1", "text": "a"}], "messages": [{"id": "2", "text": "b"}]}',
        422,
        "the key 'messages' occurs twice; expected ",
    ),
    "several": (body("a", "b", OK), 422, "entry 0: is not an object with id and text (1 more entries are wrong)"),
    "too many": (
        body(*[{"id": f"m{at}", "text": "a"} for at in range(1001)]),
        422,
        "1,001 messages, more than 1,000 (production.endpoint.messages)",
    ),
    "10 MB": (b'{"messages": ["' + b"a" * 10_000_000 + b'"]}', 413, "the body is larger than 10 MB (production.endpoint."),
}


def wrong_body(running: Endpoint, name: str) -> list[str]:
    """What is wrong with the response to a body: nothing if it is one readable sentence."""
    content, status, detail = BODIES[name]
    response = running.client.post("/score", content=content, headers={"content-type": "application/json"})
    got = response.json()
    right = (response.status_code, got["detail"][: len(detail)]) == (status, detail)
    entries = all(set(error) == {"entry", "problem"} for error in got["errors"])
    return [] if right and entries else [f"{response.status_code} {got}"]


GOOD = {"messages": [{"id": "good", "text": "call to claim"}]}
BODY = json.dumps(GOOD).encode()
JSON = b"content-type: application/json\r\n"
CHUNKED = b"transfer-encoding: chunked\r\n\r\n"
UPGRADE = b"connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAARAAAAAAAIAAAAA\r\n"
GIVEN, BAD, NONE = b"HTTP/1.1 200 ", b"HTTP/1.1 400 ", b""


def head(method: bytes = b"POST", target: bytes = b"/score", version: bytes = b"1.1") -> bytes:
    return method + b" " + target + b" HTTP/" + version + b"\r\nhost: localhost\r\n"


def post(body: bytes = BODY, more: bytes = b"", **line: bytes) -> bytes:
    return head(**line) + JSON + more + b"content-length: %d\r\n\r\n" % len(body) + body


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
    "HTTP/1.0": (post(version=b"1.0"), GIVEN),
    "HTTP/0.9": (b"GET /health\r\n\r\n", b"HTTP/1.1 421 "),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(20), BAD),
    "TLS": (bytes.fromhex("16030100c8010000c40303") + b"x" * 200, BAD),
    "an absolute URI": (post(target=b"http://localhost/score"), GIVEN),
    "no host": (b"GET /health HTTP/1.1\r\n\r\n", b"HTTP/1.1 421 "),
    "another host": (b"GET /health HTTP/1.1\r\nhost: localhost.example\r\n\r\n", b"HTTP/1.1 421 "),
    "another host by its port": (b"GET /health HTTP/1.1\r\nhost: elsewhere:8300\r\n\r\n", b"HTTP/1.1 421 "),
    "an upgrade to HTTP/2 with a body": (post(more=UPGRADE), GIVEN),
    "an upgrade to HTTP/2": (head(b"GET", b"/health") + UPGRADE + b"\r\n", GIVEN),
    "an upgrade to WebSocket": (head(b"GET", b"/health") + b"connection: upgrade\r\nupgrade: websocket\r\n\r\n", GIVEN),
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
    "chunks": (head() + JSON + CHUNKED + b"%x\r\n" % len(BODY) + BODY + b"\r\n0\r\n\r\n", GIVEN),
    "a NUL in a header": (head(b"GET", b"/health") + b"x: a\0b\r\n\r\n", BAD),
    "a header without a name": (head(b"GET", b"/health") + b": a\r\n\r\n", BAD),
    "a header of 1 MB": (head(b"GET", b"/health") + b"x: " + b"a" * 1_000_000, b"HTTP/1.1 431 "),
    "a path of 1 MB": (b"GET /" + b"a" * 1_000_000, b"HTTP/1.1 431 "),
    "50,000 headers": (head(b"GET", b"/health") + b"a: b\r\n" * 50_000, b"HTTP/1.1 431 "),
    "UTF-16": (post(BODY.decode().encode("utf-16")), BAD),
    "another charset": (post(more=b"content-type: text/plain\r\n").replace(JSON, b""), b"HTTP/1.1 415 "),
    "Latin-1": (post().replace(b"json\r\n", b"json; charset=ISO-8859-1\r\n"), b"HTTP/1.1 415 "),
    "UTF-8 in quotes": (post().replace(b"json\r\n", b'JSON ; Charset="UTF-8"\r\n'), GIVEN),
    "gzip": (post(gzip.compress(BODY), b"content-encoding: gzip\r\n"), b"HTTP/1.1 415 "),
    "gzip that is not named": (post(gzip.compress(BODY)), BAD),
    "an id of 1 MB": (post(BODY.replace(b"good", b"a" * 1_000_000)), b"HTTP/1.1 422 "),
    "a number of 1 MB": (post(BODY.replace(b'"good"', b"9" * 1_000_000)), BAD),
    "a key twice": (post(b'{"messages": [{"id": "1", "text": "a", "text": "b"}]}'), b"HTTP/1.1 422 "),
    "100,000 entries": (post(b'{"messages": [%s{}]}' % (b"{}," * 100_000)), b"HTTP/1.1 422 "),
}
# Without those that are only odd.
BAD_REQUESTS = [name for name, (_, expected) in REQUESTS.items() if expected != GIVEN]


def wrong_response(running: Endpoint, name: str) -> list[str]:
    """What is wrong with the response to the bytes of a request: nothing if it begins as expected."""
    content, expected = REQUESTS[name]
    with connected(running) as connection:
        # Of an oversized head, the server does not read all.
        with suppress(ConnectionError):
            connection.sendall(content)
        response = received(connection)
    return [] if response.startswith(expected) or (response == NONE and b" 431 " in expected) else [f"{response!r}"]
