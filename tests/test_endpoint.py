"""The endpoint: answers as in a window, what is written, invalid requests, promotions and kills under load."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ballast.exceptions import UserError
from flows.scoring.guard import token_for
from stages.production.answered import read_answered
from stages.store.project import PROJECT
from tests.bad_requests import BODIES, OK, body, wrong_body
from tests.deployed import deploy, prior_model, tfidf
from tests.endpoint_fixtures import Endpoint, children, endpoint, gone, switch
from tests.flow_fixtures import eventually
from tests.project import Project, corpus, workspace

MESSAGES = corpus({"ham": 60, "spam": 30})
COSTS = {"ham": {"ham": 0.0, "spam": 1.0}, "spam": {"ham": 7.0, "spam": 0.0}}
REVIEW = {"kind": "cost", "limit": 0.1, "cut": 0.1, "share": None, "thresholds": {"low": 0.05, "high": 0.9}}
CHANGES = {
    "effective_prior": {"ham": 0.6, "spam": 0.4},
    "production_prior": {"ham": 0.9, "spam": 0.1},
    "operating_point": {"costs": COSTS, "review": REVIEW},
}
# A year, so that no test runs over the end of a window.
WINDOW = {"production.score.id_column": "id", "production.score.window": "w%Y"}


def made(folder: Path) -> Project:
    """A workspace with a deployed linear model, and a second version of another model."""
    folder.mkdir(exist_ok=True)
    project = workspace(folder)
    project.edit(WINDOW)
    deploy(folder, prior_model({"ham": 0.8, "spam": 0.2}), "0002")
    deploy(folder, tfidf(MESSAGES), "0001", **CHANGES)
    return project


def as_messages(texts: Sequence[str], name: str = "m") -> list[dict[str, Any]]:
    return [{"id": f"{name}{at}", "text": text} for at, text in enumerate(texts)]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    with endpoint(made(tmp_path_factory.mktemp("endpoint"))) as started:
        yield started


def written(project: Project) -> list[str]:
    """The ids in the databases of all windows."""
    paths = sorted((project.folder / PROJECT.answered).glob("*.sqlite"))
    return [answer.id for path in paths for answer in read_answered(path)]


def test_the_answers_are_those_of_a_window(running: Endpoint) -> None:
    messages = as_messages(list(MESSAGES["text"]), "same")
    answers = running.answers(messages)
    running.project.write("messages.jsonl", pd.DataFrame(messages))
    done = running.project.stage_here("score", source="messages.jsonl", window="other")
    assert done.code == 0, done.stderr
    table = pd.read_parquet(running.project.folder / PROJECT.scored / "other.parquet")
    assert [answer["id"] for answer in answers] == list(table["id"])
    assert [answer["label"] for answer in answers] == list(table["label"])
    assert {answer["label"] for answer in answers} == {"ham", "spam"}
    assert [answer["review"] for answer in answers] == list(table["review"])
    assert 0 < sum(answer["review"] for answer in answers) < len(answers)
    assert {answer["version"] for answer in answers} == set(table["model"]) == {"0001"}
    got = [[answer["probabilities"][label] for label in ("ham", "spam")] for answer in answers]
    np.testing.assert_allclose(got, table[["p_ham", "p_spam"]], rtol=1e-6)


def test_requests_that_are_scored_together_get_the_answers_that_they_get_alone(running: Endpoint) -> None:
    texts = list(MESSAGES["text"][:40])
    alone = [running.answers([{"id": f"alone{at}", "text": text}])[0] for at, text in enumerate(texts)]
    together: list[Any] = [None] * len(texts)

    def ask(at: int) -> None:
        together[at] = running.answers([{"id": f"together{at}", "text": texts[at]}])[0]

    threads = [threading.Thread(target=ask, args=[at]) for at in range(len(texts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for one, other in zip(alone, together, strict=True):
        assert (one["label"], one["review"]) == (other["label"], other["review"])
        assert one["probabilities"] == pytest.approx(other["probabilities"], rel=1e-6)
    metrics = running.client.get("/metrics").text
    (count,) = (float(line.split()[1]) for line in metrics.splitlines() if line.startswith("ballast_batch_messages_count"))
    assert count < len([line for line in running.events("request") if line["status"] == 200]), "some were scored together"


def test_a_message_that_is_sent_again_is_answered_from_what_was_written(running: Endpoint) -> None:
    first = running.answers([{"id": "again", "text": "call to claim"}, {"id": 7, "text": "seven"}])
    assert running.answers([{"id": 7, "text": "seven"}, {"id": "again", "text": "call to claim"}]) == first[::-1]
    assert running.answers([{"id": "7", "text": "seven"}])[0] == {**first[1], "id": "7"}
    assert written(running.project).count("again") == written(running.project).count("7") == 1
    conflict = running.score([{"id": "new one", "text": "new"}, {"id": "again", "text": "another text"}])
    problem = "another text was answered under this id; send it under a new id"
    assert (conflict.status_code, conflict.json()["errors"]) == (409, [{"entry": 1, "problem": problem}])
    assert conflict.json()["detail"] == f"entry 1: {problem}"
    assert "new one" not in written(running.project), "nothing of such a request is scored"


WORD = "a-token-of-many-characters"


@pytest.mark.parametrize("name", BODIES)
def test_an_invalid_request_gets_one_readable_sentence_and_writes_nothing(running: Endpoint, name: str) -> None:
    assert wrong_body(running, name) == []
    assert "fine" not in written(running.project)


def test_a_body_of_unknown_length_is_limited_too(running: Endpoint) -> None:
    chunks = (b"a" * 1_000_000 for _ in range(11))
    response = running.client.post("/score", content=chunks, headers={"content-type": "application/json"})
    assert response.status_code == 413


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
def test_pages_of_other_origins_cannot_send_messages(running: Endpoint, kind: str) -> None:
    """A browser sends these types without asking; JSON needs the permission of the server, which gives none."""
    response = running.client.post("/score", content=body(OK), headers={"content-type": kind})
    assert response.status_code == 415
    preflight = {"origin": "https://elsewhere.example", "access-control-request-method": "POST"}
    assert running.client.options("/score", headers=preflight).status_code == 405


def test_other_host_names_are_refused_without_a_token(running: Endpoint) -> None:
    assert running.client.get("/version", headers={"host": "elsewhere.example"}).status_code == 421
    assert running.client.get("/version", headers={"host": f"localhost:{running.port}"}).status_code == 200


def test_oversized_headers_close_the_connection(running: Endpoint) -> None:
    with socket.create_connection(("127.0.0.1", running.port), timeout=30) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nhost: localhost\r\nx-long: ")
        received = b""
        try:
            for _ in range(1000):
                connection.sendall(b"a" * 10_000)
            received = connection.recv(100)
        except ConnectionError:
            pass
        assert received == b"" or received.startswith(b"HTTP/1.1 431 ")
    assert running.client.get("/health").json() == {"status": "ok"}


def test_many_idle_and_slow_connections_stop_nobody(running: Endpoint) -> None:
    connections = [socket.create_connection(("127.0.0.1", running.port), timeout=30) for _ in range(500)]
    try:
        for connection in connections[::2]:
            connection.sendall(b"POST /score HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n")
        for connection in connections[1::4]:
            connection.sendall(b"POST /score HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n")
            connection.sendall(b"content-length: 100\r\n\r\n{")
        assert running.answers([{"id": "among many", "text": "hello"}])[0]["id"] == "among many"
    finally:
        for connection in connections:
            connection.close()


# What JSON can be, and what is nearly a request.
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
WORDS = st.text(max_size=8)
NEARLY = st.fixed_dictionaries({"id": WORDS | VALUES, "text": WORDS | VALUES}, optional={"x": VALUES})
BODIES = st.one_of(VALUES, st.fixed_dictionaries({"messages": st.lists(NEARLY, max_size=3) | VALUES}, optional={"x": VALUES}))


@pytest.fixture(scope="module")
def documented(running: Endpoint) -> set[str]:
    """The statuses of /score in the description."""
    return set(running.client.get("/openapi.json").json()["paths"]["/score"]["post"]["responses"])


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(content=st.binary(max_size=50) | BODIES.map(lambda value: json.dumps(value).encode()))
def test_every_body_gets_a_documented_response(running: Endpoint, documented: set[str], content: bytes) -> None:
    response = running.client.post("/score", content=content, headers={"content-type": "application/json"})
    assert str(response.status_code) in documented and response.status_code < 500, response.text
    assert set(response.json()) == ({"answers"} if response.status_code == 200 else {"detail", "errors"})


def test_its_state_and_its_description_are_pages(running: Endpoint) -> None:
    assert running.client.get("/version").json() == {"version": "0001", "labels": ["ham", "spam"], "problem": None}
    assert 'ballast_version_info{version="0001"} 1.0' in running.client.get("/metrics").text
    description = running.client.get("/openapi.json").json()
    assert set(description["paths"]) == {"/score", "/health", "/ready", "/version", "/metrics"}
    page = running.client.get("/docs")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert "POST /score" in page.text and "src=" not in page.text and "https:" not in page.text
    assert running.client.get("/nowhere").status_code == 404
    assert running.client.get("/score").status_code == 405
    assert running.client.post("/score/", json={"messages": [OK]}).status_code == 404


def test_the_log_is_json_without_texts(running: Endpoint) -> None:
    secret = "the quick secret of a message"
    running.answers([{"id": "logged", "text": secret}])
    running.score([{"id": "logged", "text": f"another {secret}"}])
    running.client.post("/score", content=body({"id": [secret], "text": secret}), headers={"content-type": "application/json"})
    content = running.log.read_text(encoding="utf-8")
    assert "secret" not in content
    statuses = [line["status"] for line in running.events("request")]
    assert statuses[-3:] == [200, 409, 422]


@pytest.mark.parametrize(
    ("host", "token", "words"),
    [
        ("0.0.0.0", None, "BALLAST_ENDPOINT_TOKEN is not set, but 0.0.0.0 accepts connections from other machines"),
        ("127.0.0.1", "short", "BALLAST_ENDPOINT_TOKEN: expected 16 to 1,000 printable ASCII characters without spaces"),
        ("127.0.0.1", "", "BALLAST_ENDPOINT_TOKEN: expected 16 to 1,000 printable ASCII characters without spaces"),
    ],
)
def test_a_start_that_others_could_use_is_refused(
    monkeypatch: pytest.MonkeyPatch, host: str, token: str | None, words: str
) -> None:
    monkeypatch.delenv("BALLAST_ENDPOINT_TOKEN", raising=False)
    if token is not None:
        monkeypatch.setenv("BALLAST_ENDPOINT_TOKEN", token)
    with pytest.raises(UserError, match=f"^{re.escape(words)}"):
        token_for(host)


class Load:
    """Clients that send messages until they are stopped: what was answered, by id."""

    def __init__(self, started: Endpoint, clients: int = 4) -> None:
        self.started, self.stopped = started, threading.Event()
        self.answered: dict[str, dict[str, Any]] = {}
        self.failures: list[str] = []
        self.threads = [threading.Thread(target=self.send, args=[at]) for at in range(clients)]
        for thread in self.threads:
            thread.start()

    def send(self, client: int) -> None:
        number = 0
        while not self.stopped.is_set():
            number += 1
            messages = as_messages([f"{number} {client}"] * 2, f"load{client}-{number}-")
            try:
                response = self.started.score(messages)
            except Exception as error:
                self.failures.append(type(error).__name__)
                return
            if response.status_code != 200:
                self.failures.append(response.text)
                return
            self.answered |= {answer["id"]: answer for answer in response.json()["answers"]}

    def stop(self) -> None:
        self.stopped.set()
        for thread in self.threads:
            thread.join()


@pytest.mark.slow
def test_a_promotion_under_load_loses_no_request(tmp_path: Path) -> None:
    with endpoint(made(tmp_path / "site")) as started:
        load = Load(started)
        for version in ("0002", "0001"):
            switch(started.project.folder, version)
            eventually(lambda version=version: started.version == version)  # type: ignore[misc]
            before = len(load.answered)
            eventually(lambda before=before: len(load.answered) > before + 20)  # type: ignore[misc]
        load.stop()
        assert load.failures == []
        assert {answer["version"] for answer in load.answered.values()} == {"0001", "0002"}
        assert sorted(written(started.project)) == sorted(load.answered)
        eventually(lambda: len(children(started.process.pid)) == 1)


@pytest.mark.slow
def test_a_model_may_come_later_and_one_that_cannot_be_loaded_changes_nothing(workspace: Project) -> None:
    workspace.edit(WINDOW)
    with endpoint(workspace, wait=False, BALLAST_ENDPOINT_TOKEN=WORD) as started:
        eventually(lambda: (workspace.folder / "endpoint.log").exists() and started.events("load_failed"))
        ready = started.client.get("/ready")
        assert (ready.status_code, ready.headers["retry-after"]) == (503, "1")
        assert "so no model is deployed" in ready.json()["detail"]
        assert started.client.get("/health").status_code == 200
        assert started.score([OK]).status_code == 503
        deploy(workspace.folder, tfidf(MESSAGES), "0002")
        deploy(workspace.folder, prior_model({"ham": 0.8, "spam": 0.2}))
        eventually(lambda: started.ready)
        assert started.answers([OK])[0]["label"] == "ham"
        check_token(started)

        (workspace.folder / PROJECT.deployed / "0002/model/manifest.json").write_text("{}")
        switch(workspace.folder, "0002")
        problem = eventually(lambda: started.client.get("/version").json()["problem"])
        assert "0002/model/manifest.json" in problem
        assert started.answers([{"id": "1", "text": "hello"}])[0]["version"] == "0001"
        switch(workspace.folder, "0001")
        eventually(lambda: started.client.get("/version").json()["problem"] is None)


def check_token(started: Endpoint) -> None:
    """All paths but probes ask for the token, and a second start names what is in its way."""
    for sent in ("", "Bearer", f"Bearer {WORD[:-1]}", WORD, f"Basic {WORD}", "Bearer \xe9"):
        headers = {"authorization": sent.encode("latin-1"), "host": "elsewhere.example"}
        for path in ("/version", "/metrics", "/openapi.json", "/docs", "/nowhere"):
            refused = started.client.get(path, headers=headers)
            assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
        assert started.client.post("/score", json={"messages": [OK]}, headers=headers).status_code == 401
        assert [started.client.get(path, headers=headers).status_code for path in ("/health", "/ready")] == [200, 200]
    assert written(started.project) == ["fine"]
    assert WORD not in started.log.read_text(encoding="utf-8")
    second = started.project.run("python", "-m", "flows.endpoint", "--port", "0")
    assert second.error.endswith("another process holds this lock; wait until it has ended")
    taken = started.project.run("python", "-m", "flows.endpoint", "--port", str(started.port))
    assert taken.error.endswith("(Address already in use); choose another port with --port")


@pytest.mark.slow
def test_what_was_answered_survives_kills_and_nothing_is_written_twice(tmp_path: Path) -> None:
    project = made(tmp_path / "site")
    with endpoint(project) as started:
        load = Load(started)
        eventually(lambda: len(load.answered) > 20)
        # The process that scores: it is replaced, and no request fails.
        os.kill(children(started.process.pid)[0], signal.SIGKILL)
        assert started.answers([{"id": "while it is replaced", "text": "hello"}])[0]["version"] == "0001"
        before = len(load.answered)
        eventually(lambda: len(load.answered) > before + 20)
        assert load.failures == []
        assert [line["code"] for line in started.events("scorer_ended")] == [-signal.SIGKILL]
        scorer = children(started.process.pid)[0]
        os.kill(started.process.pid, signal.SIGKILL)
        load.stop()
        started.process.wait()
        assert gone(scorer)
    ids = written(project)
    assert len(ids) == len(set(ids))
    assert set(load.answered) <= set(ids)
    with endpoint(project) as again:
        for id_, answer in list(load.answered.items())[:5] + list(load.answered.items())[-5:]:
            client, number, _ = id_.removeprefix("load").split("-")
            assert again.answers([{"id": id_, "text": f"{number} {client}"}]) == [answer]
    assert written(project) == ids
