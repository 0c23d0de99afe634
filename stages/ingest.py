"""Ingest a named source, a file or URL, or a hub data set as one table of messages with groups, splits and folds.

Reads the source that `ingest` names and `data/feedback.parquet`; writes `data/messages.parquet` and `data/ingest.json`. A row
of feedback with the id and text of an ingested message corrects its label.
"""

from __future__ import annotations

import os
import sys

import pyarrow as pa
import pyarrow.compute as pc

from ballast.cli import parser
from ballast.data.splitting import SPLITS
from ballast.exceptions import UserError
from ballast.io.digest import file_sha256
from ballast.io.printable import counted
from ballast.io.urls import refusal, secrets_in
from ballast.parameters import MANY
from stages.store.checked import write_table
from stages.store.data_sections import Ingest
from stages.store.dropping import dropped_in_words, without_blanks, without_repeats
from stages.store.feedback_rows import concatenated, joined, read_feedback_rows
from stages.store.files import replaced, write_json
from stages.store.params import read_params
from stages.store.project import PROJECT, Project
from stages.store.relabelled import relabelled, split_corrections
from stages.store.running import run
from stages.store.source import Source, read_source
from stages.store.split_summary import split_summary
from stages.store.split_words import split_in_words
from stages.store.splits import check_no_class_is_missing, counts_by, with_fixed_splits, with_splits
from stages.store.training_labels import training_labels
from stages.tables.preview import about, preview_lines, read_in_words
from stages.tables.training import write_rejected

# An environment variable that DVC sets for its commands.
DVC_STAGE = "DVC_STAGE"
# `unit` is there with ingest.group_column only.
DROPPED = ("blank_text", "missing_label", "conflict", "duplicate")
COLUMNS = ("id", "text", "label", "group", "unit", "split", "fold", "source")


def refuse_secrets(settings: Ingest) -> None:
    """Raise UserError for a URL with secrets, because DVC writes the settings into dvc.lock, which git tracks."""
    for key, url in secrets_in({"ingest": settings.model_dump()}).items():
        raise UserError(f"{PROJECT.params}: {refusal(key, url, from_environment=False)}")


def named(source: Source, settings: Ingest) -> pa.Table:
    """The rows of a source with one name for each class; what was read and joined is printed."""
    for read in source.reads:
        for words in read_in_words(read):
            print(f"ingest: {words}", file=sys.stderr)
    print(f"ingest: {len(source.rows):,} rows from {source.served_by}", file=sys.stderr)
    labels, notes = training_labels(source.rows["label"], settings.label_map, source.where)
    for note in notes:
        print(f"ingest: {note}", file=sys.stderr)
    return source.rows.set_column(source.rows.column_names.index("label"), "label", labels)


def show_preview(settings: Ingest) -> None:
    """Print what ingest would read and drop; nothing is written. Rejected rows are shown and do not fail."""
    source = read_source(settings.model_copy(update={"rejects": MANY}))
    table, _ = with_fixed_splits(named(source, settings), settings, source.served_by)
    dropped = dict.fromkeys(DROPPED, 0)
    kept = without_repeats(without_blanks(table, dropped, source.served_by), settings, dropped, source.served_by)
    for line in preview_lines(table, table["label"], source.reads, dropped):
        print(line)
    print(f"{counted(len(kept), 'message')} of {counted(len(table), 'row')} would stay")


def main(project: Project = PROJECT, preview: bool = False) -> None:
    settings = read_params(project.params).ingest
    if preview:
        show_preview(settings)
        return
    if DVC_STAGE in os.environ:
        refuse_secrets(settings)
    source = read_source(settings)
    rows, served_by = source.rows, source.served_by
    table = named(source, settings)
    table, details = with_fixed_splits(table, settings, served_by)
    if "place" in table.column_names:
        table = table.drop_columns(["place"])
    dropped = dict.fromkeys(DROPPED, 0)
    table = without_repeats(without_blanks(table, dropped, served_by), settings, dropped, served_by)
    table = table.append_column("source", pa.repeat(settings.source, len(table)))
    labels = pc.unique(table["label"])
    corrections, feedback = split_corrections(read_feedback_rows(project.feedback, labels, settings.label_map), table)
    if settings.folds is not None:
        # The folds determine the test split, so that each message, feedback too, is in one of them.
        table = concatenated(table, feedback, settings, dropped, str(project.feedback))
    table, crossed = with_splits(table, settings, dropped, served_by)
    # After the split, which corrected labels must not move.
    table, changed = relabelled(table, corrections)
    if settings.folds is None and len(feedback):
        table = joined(table, feedback, settings, dropped, str(project.feedback))
    table = table.select([name for name in COLUMNS if name in table.column_names])
    names = sorted(labels.to_pylist())
    splits = counts_by(table, "split", list(SPLITS), names)
    folds = counts_by(table, "fold", list(range(pc.max(table["fold"]).as_py() + 1)), names)
    check_no_class_is_missing(splits, folds, project.feedback)
    with replaced(project.messages) as temporary:
        write_table(temporary, table, compression="zstd")
    groups = pc.count_distinct(table["group"]).as_py()
    ingested = {
        "served_by": served_by,
        "read": about(source.reads),
        "rows": len(rows),
        "kept": len(table),
        "dropped": dropped,
        "groups": groups,
        "labels": splits.sum().to_dict(),
        "splits": splits.to_dict("index"),
        "folds": folds.to_dict("records"),
        "split": {**details, **split_summary(table, settings, crossed)},
        "feedback": pc.sum(pc.equal(table["source"], "feedback")).as_py(),
        "relabelled": changed,
        "sha256": file_sha256(project.messages),
    }
    with replaced(project.rejected) as temporary:
        write_rejected(temporary, [row for read in source.reads for row in read.rejected])
    write_json(project.ingest, ingested)
    kept = f"{counted(len(table), 'message')} in {counted(groups, 'group')} of near duplicates"
    print(f"ingest: {kept}; dropped {dropped_in_words(dropped)}", file=sys.stderr)
    for sentence in split_in_words(ingested):
        print(f"ingest: {sentence}", file=sys.stderr)


if __name__ == "__main__":
    arguments = parser(__doc__)
    arguments.add_argument("--preview", action="store_true", help="print what would be read and dropped; write nothing")
    run(main, arguments.parse_args())
