"""The messages that the endpoint answered: their database, and the window that holds them."""

from __future__ import annotations

import contextlib
import json
import os
import re
import sqlite3
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from ballast.exceptions import UserError
from ballast.models.base import Model
from ballast.models.deployed import Version
from flows.score import only_answered
from stages.production.answer import LENGTH, Scorer, answer_all, read_frame
from stages.production.answered import (
    Answer,
    Answered,
    AnsweredMeanwhileError,
    check_answered,
    last_version,
    path_of,
    read_answered,
)
from stages.production.prune import prune_windows
from stages.production.verify import production
from stages.store.project import PROJECT
from tests.deployed import deploy, prior_model, tfidf
from tests.endpoint_fixtures import switch
from tests.project import Project, corpus

MESSAGES = corpus({"ham": 60, "spam": 30})
TEXTS = list(MESSAGES["text"])


@pytest.fixture
def project(workspace: Project) -> Iterator[Project]:
    """A workspace with two versions, of which the linear model 0001 is deployed, as the working directory."""
    workspace.edit({"production.score.id_column": "id"})
    deploy(workspace.folder, prior_model({"ham": 0.8, "spam": 0.2}), "0002")
    deploy(workspace.folder, tfidf(MESSAGES), "0001")
    with contextlib.chdir(workspace.folder):
        yield workspace


def frame(window: str, *requests: list[dict[str, Any]]) -> bytes:
    content = json.dumps({"window": window, "requests": requests}).encode()
    return LENGTH.pack(len(content)) + content


def answered(*frames: bytes) -> list[dict[str, Any]]:
    """The replies to frames of a process of its own."""
    outgoing = BytesIO()
    answer_all(BytesIO(b"".join(frames)), outgoing)
    outgoing.seek(0)
    ready, *replies = iter(lambda: read_frame(outgoing), None)
    assert ready["labels"] == ["ham", "spam"]
    return replies


def ask(window: str, texts: list[str], start: int = 0) -> list[dict[str, Any]]:
    (reply,) = answered(frame(window, [{"id": f"m{start + at}", "text": text} for at, text in enumerate(texts)]))
    return list(reply["results"][0]["answers"])


def scored(project: Project, window: str, source: str | None = None) -> pd.DataFrame:
    done = project.stage_here("score", source=source, window=window)
    assert done.code == 0, done.stderr
    return pd.read_parquet(PROJECT.scored / f"{window}.parquet")


def test_a_window_holds_what_was_answered_as_it_was_answered(project: Project) -> None:
    answers = ask("w1", TEXTS)
    # Another version is deployed before the window is scored.
    switch(project.folder, "0002")
    table = scored(project, "w1")
    assert list(table["id"]) == [answer["id"] for answer in answers]
    assert list(table["text"]) == TEXTS
    assert [dict(zip(("ham", "spam"), row, strict=True)) for row in table[["p_ham", "p_spam"]].itertuples(index=False)] == [
        answer["probabilities"] for answer in answers
    ]
    assert list(table["label"]) == [answer["label"] for answer in answers]
    assert set(table["model"]) == {"0001"}, "the one that answered"


def test_a_window_has_one_version(project: Project) -> None:
    ask("w1", TEXTS[:10])
    switch(project.folder, "0002")
    last = ask("w1", TEXTS[10:20], 10)
    table = scored(project, "w1")
    assert set(table["model"]) == {last[0]["version"]} == {"0002"}
    assert len(table) == 20
    assert table["p_ham"].to_numpy() == pytest.approx(0.8)


def test_the_messages_of_a_file_and_of_the_endpoint_are_one_window(project: Project) -> None:
    ask("w1", TEXTS[:10])
    switch(project.folder, "0002")
    again = [{"id": "m0", "text": TEXTS[0]}, {"id": "f1", "text": TEXTS[1]}]
    project.edit({"production.score.quarantine": 1.0})
    project.write("more.jsonl", pd.DataFrame(again))
    table = scored(project, "w1", "more.jsonl")
    assert list(table["id"]) == [*(f"m{at}" for at in range(10)), "f1"], "an id counts once"
    assert set(table["model"]) == {"0002"}, "the deployed one"
    project.edit({"production.score.id_column": None})
    assert list(scored(project, "w1", "more.jsonl")["id"][-2:]) == ["w1-1", "w1-2"]


def test_a_scheduled_run_needs_no_file_where_the_endpoint_answered(project: Project) -> None:
    assert not only_answered("incoming/w1", "w1")
    ask("w1", TEXTS[:1])
    assert only_answered("incoming/w1", "w1")
    assert not only_answered("s3://bucket/w1", "w1"), "it may have more"
    project.write("incoming/w1/part.csv", MESSAGES)
    assert not only_answered("incoming/w1", "w1")


def test_a_window_without_answers_needs_a_source(project: Project) -> None:
    done = project.stage_here("score", source=None, window="w1")
    assert done.error == (
        "error: production/answered/w1.sqlite: no such file, so the endpoint answered nothing in this window; name a SOURCE to"
        " score"
    )


def test_one_batch_may_hold_the_same_message_twice_but_not_two_texts(project: Project) -> None:
    one, other = {"id": "a", "text": "one"}, {"id": "a", "text": "other"}
    requests = frame("w1", [one], [one], [other, {"id": "b", "text": "b"}], [{"id": "b", "text": "other b"}])
    (reply,) = answered(requests)
    assert (reply["scored"], reply["repeated"]) == (2, 1)
    first, second, third, fourth = reply["results"]
    assert first == second
    assert [conflict["entry"] for conflict in third["conflicts"]] == [0]
    assert fourth["answers"][0]["id"] == "b", "the request before has a conflict, so it reserves no id"
    assert [answer.id for answer in read_answered(path_of("w1"))] == ["a", "b"]


def test_ids_count_in_a_window_and_the_one_before(project: Project) -> None:
    message = [{"id": "a", "text": "one"}]
    replies = answered(
        frame("w1", message), frame("w2", message), frame("w3", [{"id": "b", "text": "b"}]), frame("w4", message)
    )
    assert [(reply["scored"], reply["repeated"]) for reply in replies] == [(1, 0), (0, 1), (1, 0), (1, 0)]
    assert sorted(path.name for path in PROJECT.answered.iterdir()) == ["w1.sqlite", "w2.sqlite", "w3.sqlite", "w4.sqlite"]


def test_a_batch_that_fails_leaves_the_next_one_its_chance(project: Project) -> None:
    message = [{"id": "a", "text": "one"}]
    PROJECT.answered.mkdir(parents=True)
    path_of("w1").write_bytes(b"not a database" * 1000)
    replies = answered(frame("w1", message), frame("../w", message), frame("w0", message))
    assert replies[0]["error"].startswith("production/answered/w1.sqlite: file is not a database; stop the endpoint, save what")
    assert replies[1]["error"].startswith("production.score.window gives the name '../w'")
    assert replies[2]["scored"] == 1


def test_an_error_of_the_model_fails_its_batch_only_and_shows_no_text(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    def score(version: Version, model: Model, texts: list[str]) -> Any:
        if "poison" in texts:
            raise RuntimeError(f"cannot read {texts}")
        return scored_texts(version, model, texts)

    scored_texts = Version.score
    monkeypatch.setattr(Version, "score", score)
    replies = answered(*(frame("w1", [{"id": text, "text": text}]) for text in ("poison", "fine")))
    assert replies[0] == {"error": "RuntimeError of the model or of its libraries"}
    assert replies[1]["scored"] == 1
    assert [answer.id for answer in read_answered(path_of("w1"))] == ["fine"]


@pytest.mark.parametrize("text", [TEXTS[0], "another text"])
def test_an_answer_that_another_process_writes_meanwhile_counts(
    project: Project, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    own = Scorer.answers

    def answers(scorer: Scorer, messages: list[tuple[str, str]]) -> list[Answer]:
        given = own(scorer, messages)
        if not list(read_answered(path_of("w1"))):
            with contextlib.closing(Answered(path_of("w1"))) as other:
                other.add(own(scorer, [("m0", text)]))
        return given

    monkeypatch.setattr(Scorer, "answers", answers)
    (reply,) = answered(frame("w1", [{"id": "m0", "text": TEXTS[0]}], [{"id": "m1", "text": TEXTS[1]}]))
    first, second = reply["results"]
    assert list(first) == (["answers"] if text == TEXTS[0] else ["conflicts"])
    assert [answer["id"] for answer in second["answers"]] == ["m1"]
    assert [(answer.id, answer.text) for answer in read_answered(path_of("w1"))] == [("m0", text), ("m1", TEXTS[1])]


@pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir])
def test_what_is_no_file_is_named(tmp_path: Path, make: Callable[[Path], None]) -> None:
    path = tmp_path / "w.sqlite"
    make(path)
    for read in (Answered, check_answered, lambda path: list(read_answered(path)), last_version):
        with pytest.raises(UserError, match=r"w\.sqlite: is a (FIFO|folder); expected a regular file"):
            read(path)


def test_a_frame_that_breaks_off_is_the_end(project: Project) -> None:
    assert answered(frame("w1", [{"id": "a", "text": "one"}])[:-1]) == []
    assert answered(b"\0\0") == []


def answers_of(texts: list[str]) -> list[Answer]:
    return [Answer(f"id {at}", text, {"label": "ham", "version": "0001"}, "sha") for at, text in enumerate(texts)]


def test_a_transaction_is_whole_or_nothing(tmp_path: Path) -> None:
    database = Answered(tmp_path / "w.sqlite")
    database.add(answers_of(TEXTS[:3]))
    with pytest.raises(AnsweredMeanwhileError):
        database.add([Answer("new", "text", {}, "sha"), *answers_of(TEXTS[:1])])
    assert list(database.find(["new", "id 0", "id 2"])) == ["id 0", "id 2"]
    assert len(database.find([f"id {at}" for at in range(5000)])) == 3
    database.close()
    assert list(read_answered(tmp_path / "w.sqlite")) == answers_of(TEXTS[:3])


@pytest.mark.parametrize("column", ["id", "text", "answer", "version", "sha256"])
def test_a_changed_row_is_reported(tmp_path: Path, column: str) -> None:
    path = tmp_path / "production/answered/w.sqlite"
    database = Answered(path)
    database.add(answers_of(TEXTS[:2]))
    database.close()
    check_answered(path)
    with contextlib.closing(sqlite3.connect(path)) as changed, changed:
        changed.execute(f"UPDATE answered SET {column} = {column} || 'x' WHERE number = 2")
    error = f"^{re.escape(str(path))}: the sha256 of a row is wrong; stop the endpoint, save what `sqlite3 "
    for read in (check_answered, lambda path: list(read_answered(path))):
        with pytest.raises(UserError, match=error):
            read(path)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE answered SET text = CAST(x'ff736563726574' AS TEXT)",
        "ALTER TABLE answered RENAME COLUMN version TO versiom",
        "ALTER TABLE answered RENAME TO answeree",
    ],
)
def test_a_damaged_table_or_text_is_reported_without_the_text(tmp_path: Path, statement: str) -> None:
    path = tmp_path / "production/answered/w.sqlite"
    database = Answered(path)
    database.add(answers_of(TEXTS[:1]))
    database.close()
    with contextlib.closing(sqlite3.connect(path)) as changed, changed:
        changed.execute(statement)
    with pytest.raises(
        UserError, match=r"w\.sqlite: the table or a text is not as it was written; stop the endpoint, save what"
    ) as raised:
        check_answered(path)
    assert "secret" not in str(raised.value)


def test_every_flipped_byte_is_reported_or_harmless(tmp_path: Path) -> None:
    path = tmp_path / "w.sqlite"
    database = Answered(path)
    database.add(answers_of(TEXTS))
    database.close()
    content, expected = path.read_bytes(), answers_of(TEXTS)
    reported = 0
    for at in range(0, len(content), 211):
        path.write_bytes(content[:at] + bytes([content[at] ^ 0x55]) + content[at + 1 :])
        try:
            check_answered(path)
        except UserError:
            reported += 1
        else:
            assert list(read_answered(path)) == expected, f"byte {at} is silent"
    assert reported > len(content) / 211 / 2


def test_old_windows_are_deleted_and_all_are_verified(project: Project) -> None:
    for window in ("w1", "w2", "w3"):
        ask(window, TEXTS[:1])
    assert {path_of(window) for window in ("w1", "w2", "w3")} <= set(production())
    assert prune_windows(2) == ["w1"]
    assert sorted(path.name for path in PROJECT.answered.iterdir()) == ["w2.sqlite", "w3.sqlite"]
