"""Take back `reports/relabel.csv` after a person corrected its column `label`: the changed labels become feedback.

Reads the edited file (csv, xlsx or another format with the columns id and label) and `data/messages.parquet`; adds a row to
`data/feedback.parquet` for each message with another label. `dvc repro` then trains and evaluates on the corrected labels.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from ballast.cli import parser, run
from ballast.data.label_names import label_meant, same_label
from ballast.exceptions import UserError, suggestion
from stages.store.checked import read_frame, write_table
from stages.store.files import locked, replaced
from stages.store.params import read_params
from stages.store.project import PROJECT
from stages.store.relabelled import cell
from stages.tables.labels import read_labelled
from stages.tables.preview import dialects_in_words
from stages.tables.training import Places

COLUMNS = ["id", "text", "label", "split"]


def read_edited(path: Path) -> tuple[pd.DataFrame, Places]:
    """The columns id and label of an edited file, as text, and the places of its rows; prints the dialect; raises UserError."""
    read = read_labelled(path)
    for words in dialects_in_words([read]):
        print(f"relabel: {words}", file=sys.stderr)
    return read.table.to_pandas().fillna(""), read.places


def corrections(
    edited: pd.DataFrame, messages: pd.DataFrame, places: Places, label_map: Mapping[str, str] | None
) -> pd.DataFrame:
    """The messages (id, text, label, split) that have another label in the edited file, perhaps as a value of the label map.

    Raises UserError, with the row, for an unknown id or label, and for an id of several messages.
    """
    labels = sorted(messages["label"].unique())
    # A cell that begins like a formula has a quote in front, which spreadsheets may remove.
    label_of = {cell(label): label for label in labels} | {label: label for label in labels}
    wanted, chosen = set(edited["id"]), {}
    rows_of: dict[str, list[int]] = {}
    for row, message_id in enumerate(messages["id"]):
        for spelling in {message_id, cell(message_id)} & wanted:
            rows_of.setdefault(spelling, []).append(row)
    for row, (message_id, given) in enumerate(zip(edited["id"], edited["label"], strict=True)):
        found = rows_of.get(message_id, [])
        if len(found) != 1:
            what = f"{len(found)} messages" if len(found) else "no message"
            raise UserError(f"{places.of(row)}: {PROJECT.messages} has {what} with the id {message_id!r}; expected one")
        label = same_label(given, label_of) or label_meant(given, labels, label_map)
        if label is None:
            raise UserError(f"{places.of(row)} has the label {given!r}: {suggestion(given, {*labels, *(label_map or {})})}")
        if label_of[label] != messages.loc[found[0], "label"]:
            chosen[found[0]] = label_of[label]
    changed = messages.loc[list(chosen)]
    return changed.assign(label=list(chosen.values()))[COLUMNS].astype("str")


def main(path: Path) -> None:
    edited, places = read_edited(path)
    changed = corrections(edited, read_frame(PROJECT.messages, COLUMNS), places, read_params().ingest.label_map)
    with locked(PROJECT.feedback):
        earlier = read_frame(PROJECT.feedback, required=False)[COLUMNS].astype("str")
        table = pd.concat([earlier, changed]).drop_duplicates(["id", "text"], keep="last")
        with replaced(PROJECT.feedback) as temporary:
            write_table(temporary, table)
    what = f"{len(changed):,} of {len(edited):,} labels differ and are in {PROJECT.feedback}"
    print(f"relabel: {what}; `dvc repro` uses them", file=sys.stderr)


if __name__ == "__main__":
    arguments = parser(__doc__)
    arguments.add_argument("path", type=Path, metavar="FILE", help="reports/relabel.csv with corrected labels")
    run(main, arguments.parse_args())
