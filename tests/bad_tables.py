"""Bad tables and sources: files that are none; ids, labels and texts that name nothing; servers that fail."""

from __future__ import annotations

import gzip
import io
import json
import socket
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from pyarrow import parquet

from tests.bad_inputs import GOOD, IDS, Case

CSV = IDS.to_csv(index=False).encode()
LINES = IDS.to_json(orient="records", lines=True).encode()
NAN, INFINITE = float("nan"), float("inf")


def as_parquet(**columns: Any) -> bytes:
    """The good messages as parquet with other columns."""
    given = {name: pa.array(list(IDS[name])) for name in ("id", "text", "label")}
    sink = io.BytesIO()
    parquet.write_table(pa.table({**given, **{name: pa.array(values) for name, values in columns.items()}}), sink)
    return sink.getvalue()


def not_utf8() -> pa.Array:
    """Strings of which the third is not UTF-8, as parquet does not promise."""
    content = [*map(str.encode, IDS["text"])]
    content[2] = b"caf\xe9"
    bytes_ = pa.array(content, pa.binary())
    return pa.Array.from_buffers(pa.string(), len(content), bytes_.buffers())


def line(**values: Any) -> bytes:
    """A line of JSON with more values than the good ones have."""
    return json.dumps({"id": "x", "text": "x y", "label": "ham", **values}).encode() + b"\n"


def archive(content: bytes, *, encrypted: bool = False) -> bytes:
    """A zip archive of a.csv; encrypted is what its header says."""
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as file:
        file.writestr("a.csv", content)
    made = bytearray(sink.getvalue())
    if encrypted:
        # The flags of both headers.
        made[6] |= 1
        made[made.index(b"PK\x01\x02") + 8] |= 1
    return bytes(made)


SHUFFLED = np.arange(len(IDS), dtype=np.float64)
# name: file, content, what both readers say of it, or each of them.
FILES: dict[str, tuple[str, bytes, tuple[str, ...], tuple[str, ...]]] = {
    "half a parquet": ("a.parquet", as_parquet()[:400], ("cannot be read as parquet",), ("cannot be read",)),
    "the end of a parquet": ("a.parquet", as_parquet()[200:], ("cannot be read as parquet",), ("cannot be read",)),
    "a parquet of bytes": ("a.parquet", b"PAR1" + bytes(100) + b"PAR1", ("cannot be read as parquet",), ("cannot be read",)),
    "an empty parquet": ("a.parquet", b"", ("empty file",), ("cannot be read",)),
    "a parquet that is a csv": ("a.parquet", CSV, ("cannot be read as parquet",), ("cannot be read",)),
    "a csv that is a parquet": ("a.csv", as_parquet(), ("is a parquet file", "rename it"), ("is a parquet file", "rename it")),
    "half a gzip": (
        "a.csv.gz",
        gzip.compress(CSV)[:100],
        ("cannot be read as csv", "ended"),
        ("cannot be read as csv", "ended"),
    ),
    "a csv of NULs": ("a.csv", bytes(1000), ("no column 'text'",), ("no column 'text'",)),
    "a header with escapes": (
        "a.csv",
        b"\x1b[31mtext,label\na,b\n",
        ("no column 'text'", "\\x1b[31mtext"),
        ("no column", "\\x1b[31mtext"),
    ),
    "a header of 10,000 columns": (
        "a.csv",
        b",".join(b"column%d" % at for at in range(10_000)) + b"\n",
        ("no column 'text'", "(10,000 columns)"),
        ("no column 'text'", "(10,000 columns)"),
    ),
    "a column of 100,000 letters": (
        "a.csv",
        b"t" * 100_000 + b",label\na,b\n",
        ("no column 'text'", "ttt..."),
        ("no column 'text'", "ttt..."),
    ),
    "nested text": (
        "a.parquet",
        as_parquet(text=[["x"]] * len(IDS)),
        ("'text' holds list", "expected text"),
        ("'text' holds list",),
    ),
    "text as a mapping": (
        "a.parquet",
        as_parquet(text=[{"x": 1}] * len(IDS)),
        ("'text' holds struct",),
        ("'text' holds struct",),
    ),
    "text of nothing": (
        "a.parquet",
        as_parquet(text=[None] * len(IDS)),
        ("every text is blank",),
        ("rows are malformed", "row 1: no text"),
    ),
    "text that is infinite": (
        "a.parquet",
        as_parquet(text=[*SHUFFLED[:-1], INFINITE]),
        ("row 30: the column 'text' holds inf",),
        (),
    ),
    "text that is not UTF-8": ("a.parquet", as_parquet(text=not_utf8()), ("row 3: the column 'text' is not valid UTF-8",), ()),
    "nested ids": ("a.parquet", as_parquet(id=[["x"]] * len(IDS)), ("'id' holds list",), ("'id' holds list",)),
    "an id that is NaN": ("a.parquet", as_parquet(id=[NAN, *SHUFFLED[1:]]), ("row 1 has no id", "blank"), ()),
    "ids that are NaN": ("a.parquet", as_parquet(id=[NAN] * len(IDS)), ("row 1 has no id",), ("row 1: no id",)),
    "infinite ids": (
        "a.parquet",
        as_parquet(id=[-INFINITE] * len(IDS)),
        ("row 1", "-inf"),
        ("row 1: the column 'id' holds -inf",),
    ),
    "ids beyond 64 bits": (
        "a.parquet",
        as_parquet(id=1e30 + 1e25 * SHUFFLED),
        ("row 1", "beyond 53 bits"),
        ("row 1: the column 'id' holds a number beyond",),
    ),
    "ids of nothing": (
        "a.parquet",
        as_parquet(id=[None] * len(IDS)),
        ("row 1 has no id", "the id is blank"),
        ("row 1: no id",),
    ),
    "NaN as ids in csv": (
        "a.csv",
        IDS.assign(id="NaN").to_csv(index=False).encode(),
        ("row 1", "the id is NaN"),
        ("row 1 (line 2): the id is NaN",),
    ),
    "infinite ids in csv": (
        "a.csv",
        IDS.assign(id="-inf").to_csv(index=False).encode(),
        ("row 1", "-inf"),
        ("row 1 (line 2): the id is -inf",),
    ),
    "NaN as an id in jsonl": (
        "a.jsonl",
        LINES.replace(b'"id":"m0"', b'"id":NaN').replace(b'"id":"m', b'"id":1,"m":"'),
        ("row 1 (line 1) has no id",),
        ("rows are malformed",),
    ),
    "an id as a list": ("a.jsonl", line(id=["x"]), ("'id' holds a list",), ("'id' holds a list",)),
    "an id as a truth value": (
        "a.jsonl",
        line(id=True) * 2,
        ("expected an id that names one row",),
        ("an earlier row has the same id",),
    ),
    "a text as a mapping": ("a.jsonl", line(text={"a": 1}), ("'text' holds an object",), ("'text' holds an object",)),
    "a text twice in an object": (
        "a.jsonl",
        b'{"id": "x", "text": "a", "text": "b", "label": "ham"}\n',
        ("row 1 (line 1)", "the key 'text' occurs twice"),
        ("the key 'text' occurs twice",),
    ),
    "an id twice in an object": (
        "a.jsonl",
        b'{"id": "x", "id": "y", "text": "b", "label": "ham"}\n',
        ("row 1 (line 1)", "the key 'id' occurs twice"),
        ("the key 'id' occurs twice",),
    ),
    "a surrogate": (
        "a.jsonl",
        b'{"id": "x", "text": "\\ud800", "label": "ham"}\n',
        ("row 1 (line 1)", "not valid UTF-8"),
        ("the text is not valid UTF-8",),
    ),
    "an escaped NUL": (
        "a.jsonl",
        b'{"id": "x", "text": "a\\u0000b", "label": "ham"}\n',
        ("row 1 (line 1)", "has a NUL"),
        ("the text has a NUL",),
    ),
    "a list for an object": ("a.jsonl", b'["x", "y"]\n', ("row 1", "not an object"), ("not an object",)),
    "half an object": ("a.jsonl", b'{"id": "x", "text": ', ("row 1", "invalid JSON"), ("invalid JSON",)),
    "words for JSON": ("a.jsonl", b"\x1b]0;title\x07\n", ("row 1", "invalid JSON"), ("invalid JSON",)),
    "100,000 brackets in JSON": (
        "a.jsonl",
        LINES + line()[:-2] + b', "more": ' + b"[" * 100_000 + b"]" * 100_000 + b"}\n",
        ("row 31 (line 31): invalid JSON: maximum recursion",),
        (),
    ),
    "10,000 objects in JSON": ("a.jsonl", b'{"text": ' * 10_000, ("row 1 (line 1): invalid JSON",), ("invalid JSON",)),
    "an unknown ending": ("a.\x1b[31m", CSV, ("unknown format",), ("unknown format", "\\x1b[31m")),
}
LABELS: dict[str, tuple[str, bytes, tuple[str, ...]]] = {
    "labels that are NaN": ("a.parquet", as_parquet(label=[NAN] * len(IDS)), ("every label is blank",)),
    "an infinite label": (
        "a.parquet",
        as_parquet(label=[*SHUFFLED[:-1] % 2, INFINITE]),
        ("row 30: the column 'label' holds inf",),
    ),
    "nested labels": ("a.parquet", as_parquet(label=[{"x": "y"}] * len(IDS)), ("'label' holds struct",)),
    "dates as labels": (
        "a.parquet",
        as_parquet(label=[pd.Timestamp("2026-01-31")] * len(IDS)),
        ("a single class (2026-01-31",),
    ),
    "decimals as labels": ("a.parquet", as_parquet(label=[Decimal("1.5")] * len(IDS)), ("a single class (1.5)",)),
    "numbers as labels": (
        "a.csv",
        IDS.assign(label=range(len(IDS))).to_csv(index=False).encode(),
        ("30 classes have too few groups", "at least 9"),
    ),
    "texts as labels": (
        "a.csv",
        IDS.assign(label=IDS["text"]).to_csv(index=False).encode(),
        ("30 classes have too few", "at least 9"),
    ),
    **{
        f"a label {name}": (
            "a.csv",
            IDS.assign(label=[value, *IDS["label"][1:]]).to_csv(index=False).encode(),
            ("row 1 (line 2) has a label", words),
        )
        for name, value, words in (
            ("of 300 letters", "h" * 300, "of 300 characters"),
            ("of 20,000 letters", "h" * 20_000, "of 20,000 characters"),
            ("with an escape", "h\x1b[31mam", "'h\\x1b[31mam'"),
            ("that rings", "ham\x07", "'ham\\x07'"),
            ("with a line end", "ha\nm", "'ha\\nm'"),
            ("from right to left", "h\u202eam", "'h\\u202eam'"),
            ("nobody sees all of", "ha\u200bm", "'ha\\u200bm'"),
            ("with a C1 control", "ham\x9b31m", "'ham\\x9b31m'"),
            ("with a mark of order", "h\ufeffam", "'h\\ufeffam'"),
            ("in two paragraphs", "ha\u2029m", "'ha\\u2029m'"),
        )
    },
    "only blank labels": ("a.csv", IDS.assign(label=" ").to_csv(index=False).encode(), ("every label is blank",)),
    "a label with a smile": (
        "a.csv",
        IDS.assign(label=["\U0001f600", *IDS["label"][1:]]).to_csv(index=False).encode(),
        ("'\U0001f600' has 1 message",),
    ),
    "a label above": (
        "a.csv",
        IDS.assign(label=["../up", *IDS["label"][1:]]).to_csv(index=False).encode(),
        ("'../up' has 1 message",),
    ),
}
URLS: dict[str, tuple[str, str, dict[str, bytes], tuple[str, ...]]] = {
    "a zip that is none": ("zip://a.csv::b.zip", "csv", {"b.zip": b"no zip"}, ("cannot be read", "zip")),
    "half a zip": ("zip://a.csv::b.zip", "csv", {"b.zip": archive(CSV)[:200]}, ("cannot be read", "zip")),
    "an empty zip": ("zip://a.csv::b.zip", "csv", {"b.zip": b""}, ("cannot be read",)),
    "a zip without the file": ("zip://gone.csv::b.zip", "csv", {"b.zip": archive(CSV)}, ("no such file", "gone.csv")),
    "a zip that is not there": ("zip://a.csv::gone.zip", "csv", {}, ("no such file", "gone.zip")),
    "an encrypted zip": ("zip://a.csv::b.zip", "csv", {"b.zip": archive(CSV, encrypted=True)}, ("cannot be read", "encrypted")),
    "a tar that is none": ("tar://a.csv::b.tar", "csv", {"b.tar": b"no tar"}, ("cannot be read",)),
    "half a gzip by a chain": ("filecache::zip://a.csv", "csv", {}, ("cannot be read",)),
    "no host": ("http:///a.csv", "csv", {}, ("cannot be read",)),
    "a port of letters": ("http://127.0.0.1:port/a.csv", "csv", {}, ("cannot be read",)),
    "a port beyond all": ("http://127.0.0.1:99999/a.csv", "csv", {}, ("cannot be read",)),
    "a URL with an escape": ("http://127.0.0.1:99999/\x1b[31m.csv", "csv", {}, ("cannot be read",)),
}
# What a server answers, and whether a later try may succeed.
ANSWERS: dict[str, tuple[bytes | None, bool]] = {
    "404": (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", False),
    "403": (b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n", False),
    "410": (b"HTTP/1.1 410 Gone\r\nContent-Length: 0\r\n\r\n", False),
    "429": (b"HTTP/1.1 429 Too Many\r\nContent-Length: 0\r\n\r\n", True),
    "500": (b"HTTP/1.1 500 Fault\r\nContent-Length: 0\r\n\r\n", True),
    "503": (b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n", True),
    "504": (b"HTTP/1.1 504 Late\r\nContent-Length: 0\r\n\r\n", True),
    "a reset": (b"", True),
    "half a head": (b"HTTP/1.1 200 OK\r\nConte", True),
    "less than promised": (b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\ntext,label\n", True),
    "words": (b"\x1b[31mhello\r\n\r\n", False),
    "a redirect to itself": (b"HTTP/1.1 302 Found\r\nLocation: /a.csv\r\nContent-Length: 0\r\n\r\n", False),
    "silence": (None, True),
}


@contextmanager
def server(answer: bytes | None) -> Iterator[int]:
    """The port of a server that answers every request alike and closes the connection; with None it never does."""
    done, held = threading.Event(), list[socket.socket]()
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            while not done.is_set():
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                if answer is None:
                    held.append(connection)
                    continue
                with connection:
                    connection.recv(65536)
                    connection.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield listening.getsockname()[1]
        finally:
            done.set()
            listening.shutdown(socket.SHUT_RDWR)
            thread.join(10)
            for each in held:
                each.close()


def of_ingest(kind: str, name: str, path: str, said: tuple[str, ...], source: str = "file", **more: Any) -> Case:
    """A source that is trained on."""
    settings = {"ingest.path": path, "ingest.source": source}
    if kind == "files":
        settings["ingest.id_column"] = "id"
    return Case(kind=f"{kind} to train on", name=name, stage="ingest", said=said, params=settings, **more)


def of_score(kind: str, name: str, path: str, said: tuple[str, ...], **more: Any) -> Case:
    """A source of a window."""
    return Case(
        kind=f"{kind} to score", name=name, stage="score", said=said, arguments={"source": path, "window": "bad"}, **more
    )


def tables() -> list[Case]:
    """All but those that need a server."""
    cases = []
    for name, (path, content, trained, scored) in FILES.items():
        if trained:
            cases.append(of_ingest("files", name, path, (path.replace("\x1b", "\\x1b"), *trained), files={path: content}))
        if scored:
            cases.append(of_score("files", name, path, (path.replace("\x1b", "\\x1b"), *scored), files={path: content}))
    for name, (path, content, said) in LABELS.items():
        cases.append(of_ingest("labels", name, path, (path, *said), files={path: content}))
    for name, (url, source, files, said) in URLS.items():
        cases.append(of_ingest("URLs", name, url, said, source, files=files))
        there = not said[-1].startswith("gone")
        cases.append(of_score("URLs", name, url, said if there else ("no such file",), files=files))
    return cases


def of_server(name: str, port: int) -> list[Case]:
    """A URL at which a server answers badly, for both readers."""
    url, transient = f"http://127.0.0.1:{port}/a.csv", ANSWERS[name][1]
    said = (url, "cannot be read")
    return [make("servers", name, url, said, transient=transient) for make in (of_ingest, of_score)]


assert len(GOOD) == len(IDS)
