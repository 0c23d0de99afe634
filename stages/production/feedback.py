"""Collect labelled feedback: store each labelled message with its text, the decision of the model, and its split.

Reads `production/labels/` (id and label), the scored windows and `data/messages.parquet`; writes `production/feedback.parquet`.
A message is in the test split if its near duplicates in the data or in earlier feedback are. For a new group, this follows from
its fingerprint, so that it is the same on every machine and in every retraining.

The labelling queue over-represents difficult messages, so its labels must not move the test metrics. A new group of the queue
is for training; messages of the queue whose near duplicates are in the test split do not join the data.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import parquet

from ballast.cli import parser, run
from ballast.data.blank_text import blank_rows
from ballast.data.label_names import label_meant, same_label
from ballast.data.splitting import SPLITS
from ballast.exceptions import UserError, suggestion
from ballast.io.paths import real_folder, regular_file
from stages.production.labelling import ids_to_label, spelled_for_people
from stages.store.checked import read_frame, read_table, write_table
from stages.store.files import locked, replaced
from stages.store.groups import fingerprints_of
from stages.store.ids import first_wrong_id
from stages.store.params import read_params
from stages.store.project import PROJECT
from stages.tables.labels import read_labelled
from stages.tables.preview import dialects_in_words
from stages.tables.training import Places

COLUMNS = {
    "id": "str",
    "text": "str",
    "label": "str",
    "split": "str",
    "window": "str",
    "called": "str",
    "model": "str",
    "group": "int64",
    "new": "bool",
}


def empty(*names: str) -> pd.DataFrame:
    """An empty table with columns of the feedback."""
    return pd.DataFrame({name: pd.Series(dtype=COLUMNS[name]) for name in names})


def read_feedback() -> pd.DataFrame:
    """All feedback so far: one row for each labelled message, in the order in which the labels arrived."""
    if not regular_file(PROJECT.labelled):
        return empty(*COLUMNS)
    return read_frame(PROJECT.labelled)


def check_labels(path: Path) -> None:
    """Raise UserError if a parquet file of labels is damaged; that of an import has a digest, and others may have none."""
    # The reader of tables names an empty file.
    if path.suffix == ".parquet" and path.stat().st_size:
        read_table(path, required=False)


def blank(values: pd.Series) -> np.ndarray:
    """Whether each of the values (n,) is missing or blank."""
    return blank_rows(pa.array(values, pa.large_string()))


def read_labels(names: list[str], label_map: Mapping[str, str] | None = None) -> pd.Series:
    """Labels by message id from all files of `production/labels/`; the last label of a message counts.

    A label is one of the names, or a value of `ingest.label_map`. Rows without a label are skipped. Prints the dialects. Raises
    UserError that names the file, and the row of an unknown label.
    """
    paths = sorted(PROJECT.labels.iterdir()) if real_folder(PROJECT.labels) else []
    paths = [path for path in paths if not path.name.startswith(".")]
    for path in paths:
        check_labels(path)
    reads = [read_labelled(path) for path in paths]
    for words in dialects_in_words(reads):
        print(f"feedback: {words}", file=sys.stderr)
    parts, spelled = [pd.Series(dtype="str")], spelled_for_people()
    for read in reads:
        if unnamed := first_wrong_id(read.table["id"]):
            raise UserError(f"{read.places.of(unnamed[0])}: {unnamed[1]}; expected the id of a scored message")
        table = read.table.to_pandas()
        labels, ids = (table[name].astype("str") for name in ("label", "id"))
        # A sheet may be filled in step by step.
        given = ~blank(labels)
        if (nameless := given & blank(ids)).any():
            raise UserError(f"{read.places.of(int(nameless.argmax()))} has no id; expected the id of a scored message")
        meant = labels_meant(read.places, labels[given], names, label_map)
        parts.append(pd.Series(labels[given].map(meant).to_numpy(dtype=object), index=ids[given].to_numpy(dtype=object)))
    every = pd.concat(parts)
    every.index = every.index.map(lambda identifier: spelled.get(identifier, identifier))
    return every[~every.index.duplicated(keep="last")]


def labels_meant(places: Places, labels: pd.Series, names: list[str], label_map: Mapping[str, str] | None) -> dict[str, str]:
    """The name that each label of a file means; the index of the labels is their row, from 0.

    Raises UserError, with the row, for an unknown label. A name of the model that is also a value of `ingest.label_map` means
    the model's label, with a warning if the map gives it another one.
    """
    meant: dict[str, str] = {}
    values = label_map or {}
    for written in labels.unique():
        label = label_meant(written, names, label_map)
        if label is None:
            row = int(labels.index[labels == written][0])
            raise UserError(f"{places.of(row)} has the label {written!r}: {suggestion(written, {*names, *values})}")
        meant[written] = label
        value = same_label(written, values)
        if value is not None and same_label(values[value], names) != label:
            other = f"not as the value that ingest.label_map maps to {values[value]!r}"
            print(f"feedback: warning: {places.files[0]}: {written!r} is read as the label {label!r}, {other}", file=sys.stderr)
    return meant


def labelled_messages(labels: pd.Series, before: pd.DataFrame) -> pd.DataFrame:
    """The scored messages with a label but without earlier feedback, each with the first window that contains it.

    Raises UserError for an id of two different messages.
    """
    parts = [before.loc[before["id"].isin(labels.index), ["id", "text", "group", "called", "model", "window"]]]
    wanted = pa.array(labels.index.astype(str), pa.string())
    for path in sorted(PROJECT.scored.glob("*.parquet")) if len(wanted) else ():
        columns = ["id", "text", "group", "label", "model"]
        regular_file(path)
        try:
            rows = read_table(path, columns, parquet.filters_to_expression([("id", "in", wanted)]))
        except UserError:
            if not path.exists():  # deleted meanwhile, with all older windows
                continue
            raise
        if len(rows):
            parts.append(rows.to_pandas().rename(columns={"label": "called"}).assign(window=path.stem))
    every = pd.concat(parts).drop_duplicates(["id", "text"])
    twice = every[every["id"].duplicated(keep=False)]
    if len(twice):
        first, second = twice[twice["id"] == twice["id"].iloc[0]]["window"].iloc[:2]
        raise UserError(
            f"{PROJECT.scored}: the id {twice['id'].iloc[0]!r} belongs to different messages in the windows {first} and"
            f" {second}, so a label for it is ambiguous; use ids that are unique over all windows"
        )
    return every[~every["id"].isin(before["id"])]


def splits_of(groups: np.ndarray, asked: np.ndarray, existing: Mapping[int, str], test: float) -> np.ndarray:
    """The split (n,) of each message, test or train, by its group (n,): that of an existing group, else test with a share.

    The fingerprint of a new group decides, by its upper bits; its fold follows from the lower ones when it is ingested. A new
    group with a message that the labelling queue asked for, as `asked` (n,) says, is for training.
    """
    share = groups.astype(np.uint64).astype(np.float64) / 2.0**64
    by_hash = np.where((share >= 1 - test) & ~np.isin(groups, groups[asked]), "test", "train")
    return np.array([existing.get(int(group), split) for group, split in zip(groups, by_hash, strict=True)], dtype=object)


def main() -> None:
    settings = read_params().ingest
    # An older table has other groups and no column fold, which makes it an error.
    base = read_table(PROJECT.messages, ["text", "label", "group", "split", "fold"])
    with locked(PROJECT.labelled):
        labels = read_labels(sorted(set(base["label"].to_pylist())), settings.label_map)
        before = read_feedback()
        earlier = before.assign(label=before["id"].map(labels).fillna(before["label"]))
        arrived = labelled_messages(labels, before)
        # A group that crosses official splits counts as training, because a model has seen it.
        order = base.take(pc.sort_indices(pc.index_in(base["split"], pa.array(SPLITS[::-1], pa.large_string()))))
        splits = dict(zip(order["group"].to_pylist(), order["split"].to_pylist(), strict=True))
        splits |= dict(zip(before["group"].tolist(), before["split"].tolist(), strict=True))
        own = fingerprints_of(arrived["text"])
        existing = np.concatenate([fingerprints_of(base["text"]), fingerprints_of(before["text"])])
        groups, asked = arrived["group"].to_numpy(dtype=np.int64), arrived["id"].isin(ids_to_label()).to_numpy(dtype=bool)
        split = splits_of(groups, asked, splits, settings.fractions.test)
        new = ~np.isin(own, existing) & ~pd.Series(own).duplicated().to_numpy() & ~(asked & (split == "test"))
        arrived = arrived.assign(label=arrived["id"].map(labels), split=split, new=new)
        table = pd.concat([earlier, arrived])[list(COLUMNS)].astype(COLUMNS)
        with replaced(PROJECT.labelled) as temporary:
            write_table(temporary, table)
    waiting = int((~labels.index.isin(table["id"])).sum())
    print(
        f"feedback: {len(table):,} labelled messages ({len(arrived):,} added now), {table['new'].sum():,} of them new to the"
        f" data; {waiting:,} labels have no scored message yet",
        file=sys.stderr,
    )


if __name__ == "__main__":
    run(main, parser(__doc__).parse_args())
