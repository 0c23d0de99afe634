"""Label a window's messages in Label Studio: write its messages to label as tasks, and read the finished tasks back.

`export` writes `production/to_label/<window>.label_studio.json` (tasks) and `.label_studio.xml` (the labelling interface).
`import` reads a file that Label Studio exported as JSON or JSON-MIN, and writes `production/labels/<file>.parquet`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

import pandas as pd

from ballast.cli import parser, run
from ballast.exceptions import UserError
from ballast.io.paths import regular_file
from stages.production.malformed import malformed_id, malformed_text
from stages.production.windows import WINDOW, quoted_name, read_window
from stages.store.checked import write_table
from stages.store.files import locked, read_json, replaced, write_plain_json
from stages.store.project import PROJECT

# Names in the interface. The id of a message is not named id, because that is the id of the task in JSON-MIN.
CONTROL, ID = "label", "message_id"
ENDING = ".label_studio"
LONGEST = 1 << 28


def interface(labels: list[str]) -> str:
    """The labelling interface: one of the labels for each text.

    >>> print(interface(["ham", 'a"<b']))
    <View>
      <Text name="text" value="$text"/>
      <Choices name="label" toName="text" choice="single-radio" showInline="true">
        <Choice value="ham"/>
        <Choice value='a"&lt;b'/>
      </Choices>
    </View>
    """
    choices = [f"    <Choice value={quoteattr(label)}/>" for label in labels]
    head = f'  <Choices name="{CONTROL}" toName="text" choice="single-radio" showInline="true">'
    return "\n".join(["<View>", '  <Text name="text" value="$text"/>', head, *choices, "  </Choices>", "</View>"])


def tasks_of(watched: Mapping[str, Any], texts: Mapping[str, str]) -> list[dict[str, Any]]:
    """The tasks for the messages to label of a watched window."""
    return [{"data": {ID: row["id"], "text": texts[row["id"]]}} for row in watched["to_label"]]


def export(window: str) -> None:
    """Write the tasks and the interface of a window; raises UserError if it is not watched or asks for no labels."""
    path = PROJECT.watch / f"{window}.json"
    if not path.is_file():
        raise UserError(f"{path}: no such watched window; `python -m flows.watch --window {window}` watches it")
    watched = read_json(path)
    if not watched["to_label"]:
        raise UserError(f"{path}: the window asks for no labels; production.labelling.budget in params.yaml sets their number")
    table, _ = read_window(window)
    texts = dict(zip(table["id"], table["text"], strict=True))
    if missing := [row["id"] for row in watched["to_label"] if row["id"] not in texts]:
        raise UserError(f"{path}: {window} was scored again and has no message {missing[0]!r}; watch it again")
    tasks = tasks_of(watched, texts)
    written = PROJECT.to_label / f"{window}{ENDING}.json"
    with locked(written):
        write_plain_json(written, tasks)
        with replaced(written.with_suffix(".xml")) as temporary:
            temporary.write_text(interface(watched["labels"]) + "\n", encoding="utf-8")
    print(f"label_studio: {len(tasks)} tasks in {written}, and the interface in {written.with_suffix('.xml')}", file=sys.stderr)


def choice(task: Mapping[str, Any]) -> str | None:
    """The label of a finished task, of its last annotation; None without one. Raises ValueError with what is wrong.

    >>> choice({"annotations": [{"result": [{"from_name": "label", "value": {"choices": ["spam"]}}]}]})
    'spam'
    >>> choice({"text": "see you", "label": "ham"}), choice({"annotations": [{"was_cancelled": True, "result": []}]})
    ('ham', None)
    """
    if "annotations" not in task:
        value = task.get(CONTROL)
        chosen = [] if value is None else [value]
    else:
        finished = [annotation for annotation in task["annotations"] if not annotation.get("was_cancelled")]
        regions = finished[-1]["result"] if finished else []
        chosen = [label for region in regions if region["from_name"] == CONTROL for label in region["value"]["choices"]]
    if len(chosen) > 1 or not all(isinstance(label, str) for label in chosen):
        raise ValueError(f"expected one label, got {json.dumps(chosen)[:100]}")
    return chosen[0] if chosen else None


def check_values(identifier: str, label: str | None) -> None:
    """Raise ValueError for an id or a label that no file of labels may hold: all files would be rejected with it."""
    reason = malformed_id(identifier, LONGEST)
    if reason is None and label is not None and (reason := malformed_text(label, LONGEST)):
        reason = reason.replace("text", "label", 1)
    if reason:
        raise ValueError(reason)


def read_tasks(path: Path) -> pd.DataFrame:
    """Ids and labels of the finished tasks of a file; raises UserError, with the number of the task, for a malformed one."""
    expected = "expected the tasks that Label Studio exports as JSON or JSON-MIN"
    if not regular_file(path):
        raise UserError(f"{path}: no such file; {expected}")
    if path.stat().st_size > LONGEST:
        raise UserError(f"{path}: more than {LONGEST:,} bytes; export fewer tasks at once")
    try:
        tasks = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not valid JSON; {expected}") from error
    if not isinstance(tasks, list):
        raise UserError(f"{path}: not a list; {expected}")
    rows = []
    for number, task in enumerate(tasks, 1):
        try:
            identifier, label = task.get("data", task)[ID], choice(task)
            if not isinstance(identifier, str):
                raise ValueError(f"{ID} is not text")
            check_values(identifier, label)
        except (AttributeError, KeyError, TypeError, IndexError, ValueError) as error:
            reason = f"no {error}" if isinstance(error, KeyError) else str(error)
            raise UserError(f"{path}: task {number}: {reason}; {expected}, of a project with the exported interface") from error
        if label is not None:
            rows.append({"id": identifier, "label": label})
    return pd.DataFrame(rows, columns=["id", "label"])


def import_tasks(path: Path) -> None:
    """Write the labels of finished tasks to where the watch reads them."""
    table = read_tasks(path)
    target = PROJECT.labels / f"{path.stem}.parquet"
    with locked(target), replaced(target) as temporary:
        write_table(temporary, table)
    print(f"label_studio: {len(table)} labels in {target}", file=sys.stderr)


def main(action: str, name: str) -> None:
    if action == "import":
        import_tasks(Path(name))
        return
    if not WINDOW.fullmatch(name):
        raise UserError(f"{quoted_name(name)} is not the name of a window")
    export(name)


if __name__ == "__main__":
    arguments = parser(__doc__)
    arguments.add_argument("action", choices=["export", "import"])
    arguments.add_argument("name", metavar="NAME", help="export: a watched window; import: a file from Label Studio")
    run(main, arguments.parse_args())
