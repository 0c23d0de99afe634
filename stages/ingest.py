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
from stages.store.checked import write_table
from stages.store.data_sections import Ingest
from stages.store.dropping import dropped_in_words, without_blanks, without_repeats
from stages.store.feedback_rows import concatenated, joined, read_feedback_rows
from stages.store.files import replaced, write_json
from stages.store.params import read_params
from stages.store.project import PROJECT, Project
from stages.store.relabelled import relabelled, split_corrections
from stages.store.running import run
from stages.store.source import read_source
from stages.store.split_summary import split_summary
from stages.store.split_words import split_in_words
from stages.store.splits import check_no_class_is_missing, counts_by, with_fixed_splits, with_splits
from stages.store.training_labels import training_labels

# An environment variable that DVC sets for its commands.
DVC_STAGE = "DVC_STAGE"
# `unit` is there with ingest.group_column only.
COLUMNS = ("id", "text", "label", "group", "unit", "split", "fold", "source")


def refuse_secrets(settings: Ingest) -> None:
    """Raise UserError for a URL with secrets, because DVC writes the settings into dvc.lock, which git tracks."""
    for key, url in secrets_in({"ingest": settings.model_dump()}).items():
        raise UserError(f"{PROJECT.params}: {refusal(key, url, from_environment=False)}")


def main(project: Project = PROJECT) -> None:
    settings = read_params(project.params).ingest
    if DVC_STAGE in os.environ:
        refuse_secrets(settings)
    rows, served_by = read_source(settings)
    print(f"ingest: {len(rows):,} rows from {served_by}", file=sys.stderr)
    names_of_rows, notes = training_labels(rows["label"], settings.label_map, served_by)
    for note in notes:
        print(f"ingest: {note}", file=sys.stderr)
    table = rows.set_column(rows.column_names.index("label"), "label", names_of_rows)
    table, details = with_fixed_splits(table, settings, served_by)
    dropped = dict.fromkeys(["blank_text", "missing_label", "conflict", "duplicate"], 0)
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
    write_json(project.ingest, ingested)
    kept = f"{counted(len(table), 'message')} in {counted(groups, 'group')} of near duplicates"
    print(f"ingest: {kept}; dropped {dropped_in_words(dropped)}", file=sys.stderr)
    for sentence in split_in_words(ingested):
        print(f"ingest: {sentence}", file=sys.stderr)


if __name__ == "__main__":
    run(main, parser(__doc__).parse_args())
