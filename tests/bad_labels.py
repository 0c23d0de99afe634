"""Bad labels that come back: files in production/labels, and files that Label Studio did not export."""

from __future__ import annotations

import json
from typing import Any

from tests.bad_inputs import Case

ROWS: dict[str, tuple[bytes, tuple[str, ...]]] = {
    "NaN as ids": (b"id,label\nNaN,ham\n", ("row 1 (line 2)", "the id is NaN")),
    "an unknown label": (b"id,label\nm1,\x1b[31mham\n", ("row 1", "'\\x1b[31mham'", "known: ham, spam")),
    "a label that runs": (b"id,label\nm1,=ham\n", ("row 1", "'=ham'", "did you mean 'ham'")),
    "a label of 20,000 letters": (b"id,label\nm1," + b"h" * 20_000 + b"\n", ("row 1", "hhh", "known: ham, spam")),
    "no column": (b"id,\x1b[31mlabel\nm1,ham\n", ("no column 'label'", "\\x1b[31mlabel")),
    "column twice": (b"id,label,label\nm1,ham,spam\n", ("more than one column 'label'",)),
    "no id": (b"id,label\n,ham\n", ("row 1 (line 2) has no id",)),
    "bytes": (bytes(range(256)), ("production/labels/a.csv",)),
    "half a row": (b"id,label\nm1,ham\nm2\n", ("row 2",)),
    "an open quote": (b'id,label\nm1,"ham\nm2,ham\n', ("production/labels/a.csv",)),
    "a file of NULs": (bytes(1000), ("no column",)),
}


def task(**values: Any) -> bytes:
    """A file with a finished task, of which some keys have other values."""
    return json.dumps([{"message_id": "m1", "text": "x", "label": "ham"} | values]).encode()


def annotated(*annotations: Any) -> bytes:
    """A file with a task and its annotations."""
    return json.dumps([{"data": {"message_id": "m1"}, "annotations": annotations}]).encode()


TASKS: dict[str, tuple[bytes, tuple[str, ...]]] = {
    "nothing": (b"", ("not valid JSON",)),
    "half a file": (task()[:-2], ("not valid JSON",)),
    "a csv": (b"id,label\nm1,ham\n", ("not valid JSON",)),
    "100,000 brackets": (b"[" * 100_000, ("not valid JSON",)),
    "a number of 5,000 digits": (b"[" + b"9" * 5000 + b"]", ("not valid JSON",)),
    "Latin-1": (task(text="\xe9").replace(b"\\u00e9", b"\xe9"), ("not valid JSON",)),
    "an object": (b"{}", ("not a list",)),
    "null": (b"null", ("not a list",)),
    "numbers": (b"[1, 2]", ("task 1: ",)),
    "a task of nulls": (task(message_id=None), ("task 1: message_id is not text",)),
    "a number as id": (task(message_id=1), ("task 1: message_id is not text",)),
    "no id": (b'[{"data": {"text": "x"}, "annotations": []}]', ("task 1: no 'message_id'",)),
    "a list as data": (b'[{"data": ["message_id"], "annotations": []}]', ("task 1: ",)),
    "an id with a NUL": (task(message_id="a\0b"), ("task 1: ", "NUL")),
    "an id that is half a character": (task(message_id="\ud800"), ("task 1: ", "not valid UTF-8")),
    "an empty id": (task(message_id=""), ("task 1: no id",)),
    "the word NaN as id": (task(message_id="NaN"), ("task 1: the id is NaN",)),
    "several labels": (task(label={"choices": ["ham", "spam"]}), ("task 1: expected one label",)),
    "a number as label": (task(label=1), ("task 1: expected one label",)),
    "a label that is half a character": (task(label="\ud800"), ("task 1: the label is not valid UTF-8",)),
    "a label with a NUL": (task(label="ham\0"), ("task 1: the label has a NUL",)),
    "a blank label": (task(label=" "), ("task 1: the label is blank",)),
    "annotations of nothing": (b'[{"data": {"message_id": "1"}, "annotations": null}]', ("task 1: ",)),
    "annotations as words": (annotated("words"), ("task 1: ",)),
    "no result": (annotated({}), ("task 1: no 'result'",)),
    "a region of nothing": (annotated({"result": [{}]}), ("task 1: no 'from_name'",)),
    "a value of nothing": (annotated({"result": [{"from_name": "label", "value": None}]}), ("task 1: ",)),
    "choices as words": (
        annotated({"result": [{"from_name": "label", "value": {"choices": "ham"}}]}),
        ("task 1: expected",),
    ),
}
# The name of a file or of a window, and what is said.
NAMES = {
    "import": {"gone.json": "no such file", "production": "is a folder", "a\x1b[31m.json": "no such file", "a\0b": "null byte"},
    "export": {
        "gone": "no such watched window",
        "../w": "is not the name of a window",
        "a\x1b[31m": "is not the name of a window",
    },
}


def labels() -> list[Case]:
    """All of them."""
    kind, cases = "labels that came", []
    for name, (content, said) in ROWS.items():
        files = {"production/labels/a.csv": content}
        cases.append(Case(kind=kind, name=name, stage="feedback", said=("a.csv", *said), files=files))
    for name, (content, said) in TASKS.items():
        given = {"action": "import", "name": "project-1.json"}
        cases.append(
            Case(
                kind=kind,
                name=f"tasks: {name}",
                stage="label_studio",
                arguments=given,
                said=("project-1.json: ", *said),
                files={"project-1.json": content},
            )
        )
    for action, names in NAMES.items():
        for name, words in names.items():
            given = {"action": action, "name": name}
            cases.append(Case(kind=kind, name=f"{action} {name}", stage="label_studio", arguments=given, said=(words,)))
    return cases
