"""Read the source that params.yaml names as one table of labelled messages."""

from __future__ import annotations

import glob
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ballast.data.blank_text import blank_rows
from ballast.exceptions import UserError, short
from ballast.io.urls import file_path, public_url
from stages.store import sms_spam
from stages.store.columns import as_strings
from stages.store.data_sections import COLUMN_KEYS, DialectSettings, Ingest, OfSplits
from stages.store.ids import first_wrong_id
from stages.tables.detect import Expected
from stages.tables.hub import read_hub
from stages.tables.training import Read, place_of, read_training

# Names of the columns by the key that names them in the file; columns of the split keep the name of the key.
NAMES = {"id_column": "id", "text_column": "text", "label_column": "label"}
# The lines of the SMS Spam Collection: label, tab, text; without a header, and quotes are data.
SMS = Expected(
    wanted={"column1": "ingest.label_column", "column2": "ingest.text_column"},
    source="tsv",
    dialect=DialectSettings(encoding="utf-8", delimiter="\t", quote="none", header=False),
)


@dataclass(frozen=True)
class Source:
    """The rows of a source as text, the place that served them, and what was read of each file."""

    rows: pa.Table
    served_by: str
    reads: list[Read] = field(default_factory=list)

    def where(self, row: int) -> str:
        """The place of a row, from 0, in words."""
        return place_of(self.rows, row, self.served_by)


def read_source(settings: Ingest) -> Source:
    """The rows of the source as id, text and label, with the columns that the split needs, and the place of each row.

    Columns of the split are text, or `split` if a file or hub split holds each split.
    """
    parts = {split: read_part(of_split) for split, of_split in settings_of_splits(settings).items()}
    tables = [
        part.rows
        if split is None
        else part.rows.append_column("split", pa.repeat(pa.scalar(split, pa.large_string()), len(part.rows)))
        for split, part in parts.items()
    ]
    source = Source(
        pa.concat_tables(tables),
        " and ".join(part.served_by for part in parts.values()),
        [read for part in parts.values() for read in part.reads],
    )
    if "id" not in source.rows.column_names:
        return replace(source, rows=source.rows.add_column(0, "id", pa.chunked_array([running_ids(source)])))
    ids = source.rows["id"]
    if rows := first_repeat(ids):
        raise UserError(
            f"{source.where(rows[1])} has the id {short(ids[rows[0]].as_py())!r} of {source.where(rows[0])}, in the column"
            f" {settings.id_column!r} (ingest.id_column); expected an id that names one row"
        )
    return source


def running_ids(source: Source) -> pa.Array:
    """The number of each row as its id: in its file, or through all files if there are several; rejected rows count."""
    numbers, before = [], 0
    for read in source.reads:
        records = np.array(read.records_of_files)
        starts = np.concatenate([[0], np.cumsum(records)[:-1]]) + before
        numbers.append(read.places.number + starts[read.places.file])
        before += int(records.sum())
    every = np.concatenate(numbers) if numbers else np.arange(1, len(source.rows) + 1)
    return pc.cast(pa.array(every), pa.large_string())


def settings_of_splits(settings: Ingest) -> dict[str | None, Ingest]:
    """The settings of the source of each split; those of all messages, by None, if the source holds them together."""
    if settings.split_files is not None:
        folder = glob.escape(settings.path.rstrip("/"))
        files = {
            split: {"path": f"{folder}/{name}"} for split, name in settings.split_files.model_dump(exclude_none=True).items()
        }
        return {split: settings.model_copy(update=own) for split, own in files.items()}
    if settings.source == "hub" and isinstance(settings.hub.split, OfSplits):
        hubs = {
            split: settings.hub.model_copy(update={"split": name})
            for split, name in settings.hub.split.model_dump(exclude_none=True).items()
        }
        return {split: settings.model_copy(update={"hub": hub}) for split, hub in hubs.items()}
    return {None: settings}


def read_part(settings: Ingest) -> Source:
    """The rows of one file or hub split: [id,] text, label and columns of the split as text."""
    # The text first: an error names the first column that is missing.
    keys = sorted(COLUMN_KEYS, key="id_column".__eq__)
    wanted = {key: column for key in keys if (column := getattr(settings, key)) is not None}
    if settings.source == "hub":
        source = of_hub(settings, wanted)
    elif settings.source == "sms_spam":
        raw, served_by = sms_spam.obtain(Path(settings.path))
        read = read_training(str(raw), SMS)
        names = [{"column1": "label", "column2": "text"}.get(name, name) for name in read.located.column_names]
        source = Source(read.located.rename_columns(names), served_by, [read])
        wanted = {"text_column": "text", "label_column": "label"}
    else:
        expected = Expected(
            wanted={column: f"ingest.{key}" for key, column in wanted.items()},
            source=settings.source,
            dialect=settings.dialect,
        )
        path = path_of_files(settings)
        read = read_training(path, expected, rejects=settings.rejects, sha256=settings.sha256)
        source = Source(read.located, f"file {public_url(path)}", [read])
    if len(source.rows) == 0:
        raise UserError(f"{source.served_by}: no rows; expected messages with the columns {', '.join(wanted.values())}")
    columns = {NAMES.get(key, key): as_strings(source.rows[name], name, source.served_by) for key, name in wanted.items()}
    if "id_column" in wanted:
        check_ids(source, wanted["id_column"], columns["id"])
    places = {"place": source.rows["place"]} if "place" in source.rows.column_names else {}
    return replace(source, rows=pa.table({**columns, **places}))


def path_of_files(settings: Ingest) -> str:
    """The path, pattern or URL of the files: `files` names those in the folder `path`, or in the zip archive."""
    if settings.files is None:
        return settings.path
    if file_path(settings.path).lower().endswith(".zip") and not Path(settings.path).is_dir():
        return f"zip://{settings.files}::{settings.path}"
    return f"{glob.escape(settings.path.rstrip('/'))}/{settings.files}"


def of_hub(settings: Ingest, wanted: Mapping[str, str]) -> Source:
    """The rows of a hub data set; raises UserError."""
    if settings.hub.name is None:
        raise UserError("params.yaml: ingest.source hub needs ingest.hub.name, such as ucirvine/sms_spam")
    served_by = f"hub data set {public_url(settings.hub.name)}"
    if settings.split == "column" and settings.split_column is None:
        served_by += f", split {settings.hub.split}"
    return Source(read_hub(**settings.hub.model_dump(), wanted=wanted), served_by)


def check_ids(source: Source, name: str, ids: pa.ChunkedArray) -> None:
    """Raise UserError, with the row, for a missing or invalid id; `ids` is the column of that name as text."""
    if wrong := first_wrong_id(source.rows[name]) or first_blank(ids):
        row, reason = wrong
        raise UserError(f"{source.where(row)} has no id in the column {name!r} (ingest.id_column): {reason}")


def first_blank(ids: pa.ChunkedArray) -> tuple[int, str] | None:
    """The first row (from 0) of ids (n,) without a value, and the reason; None if there is none."""
    blank = np.flatnonzero(blank_rows(ids))
    return (int(blank[0]), "the id is blank") if len(blank) else None


def first_repeat(ids: pa.ChunkedArray) -> tuple[int, int] | None:
    """The first row (from 0) of ids (n,) whose id an earlier row has, after that row; None if all ids differ."""
    if pc.count_distinct(ids).as_py() == len(ids):
        return None
    row = int(ids.to_pandas().duplicated().to_numpy().argmax())
    return pc.index(ids, ids[row]).as_py(), row
