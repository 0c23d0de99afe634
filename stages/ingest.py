"""Ingest a named source, a file or URL, or a hub data set into one table of messages with groups and splits.

Reads the source that `ingest` names and `data/feedback.parquet`; writes `data/messages.parquet` and `data/ingest.json`.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import parquet

from ballast.command import parser, run
from ballast.encoders import file_sha256
from ballast.errors import UserError, nearest
from ballast.near_duplicates import fingerprints, near_duplicate_groups
from ballast.splitting import SPLITS, stratified_grouped_split
from stages import sms_spam
from stages.files import FEEDBACK, INGEST, MESSAGES, replaced, write_json
from stages.params import Ingest, read_params
from stages.tables import read_file, read_hub, read_sms


def read_source(settings: Ingest) -> tuple[pa.Table, str]:
    """The source's rows as id, text, label, and where they came from."""
    wanted = {"text_column": settings.text_column, "label_column": settings.label_column}
    if settings.id_column is not None:
        wanted["id_column"] = settings.id_column
    if settings.source == "sms_spam":
        path, served_by = sms_spam.obtain(Path(settings.path))
        table, wanted = read_sms(path), {"text_column": "text", "label_column": "label"}
    elif settings.source == "hub":
        if settings.hub.name is None:
            raise UserError("params.yaml: ingest.source hub needs ingest.hub.name, such as ucirvine/sms_spam")
        table, served_by = read_hub(**settings.hub.model_dump(), wanted=wanted), f"hub data set {settings.hub.name}"
    else:
        table, served_by = read_file(settings.path, settings.source, wanted, settings.sha256), f"file {settings.path}"
    if len(table) == 0:
        raise UserError(f"{served_by}: no rows; expected messages with the columns {', '.join(wanted.values())}")
    columns = {key.removesuffix("_column"): as_strings(table[name], name, served_by) for key, name in wanted.items()}
    ids = columns.get("id", pa.chunked_array([pc.cast(pa.array(np.arange(1, len(table) + 1)), pa.string())]))
    if ids.null_count or pc.count_distinct(ids).as_py() < len(ids):
        raise UserError(f"{served_by}: the column {settings.id_column!r} (ingest.id_column) must name each row once")
    return pa.table({"id": ids, "text": columns["text"], "label": columns["label"]}), served_by


def as_strings(column: pa.ChunkedArray, name: str, served_by: str) -> pa.ChunkedArray:
    """A column as strings; raises UserError for nested values and for NUL characters, with the row."""
    try:
        strings = pc.cast(column, pa.large_string())
    except pa.ArrowException as error:
        raise UserError(f"{served_by}: the column {name!r} holds {column.type}, expected text") from error
    row = pc.index(pc.fill_null(pc.match_substring(strings, "\0"), False), True).as_py()
    if row >= 0:
        raise UserError(f"{served_by}: row {row + 1} has a NUL byte in the column {name!r}; expected text")
    return strings


def mapped(labels: pa.ChunkedArray, label_map: dict[str | int | bool, str] | None, served_by: str) -> pa.ChunkedArray:
    """Labels through the map; raises UserError for a value that the map lacks, with its row."""
    if label_map is None:
        return labels
    known = {str(key).lower() if isinstance(key, bool) else str(key): value for key, value in label_map.items()}
    at = pc.index_in(labels, pa.array(list(known), labels.type))
    missing = pc.and_(pc.is_null(at), pc.is_valid(labels))
    row = pc.index(missing, True).as_py()
    if row >= 0:
        label = labels[row].as_py()
        raise UserError(
            f"{served_by}: row {row + 1} has the label {label!r}, which ingest.label_map lacks: {nearest(label, known)}"
        )
    return pa.chunked_array([pa.array(list(known.values()), pa.large_string()).take(at.combine_chunks())])


def drop(table: pa.Table, doomed: np.ndarray, reason: str, dropped: dict[str, int]) -> pa.Table:
    """The table without the doomed (n,) rows, which are counted under the reason."""
    dropped[reason] = int(doomed.sum())
    return table.filter(pa.array(~doomed)) if doomed.any() else table


def without_blanks(table: pa.Table, dropped: dict[str, int], served_by: str) -> pa.Table:
    """The table without rows that lack a text or a label; raises UserError when no row is left."""
    trimmed = {name: pc.utf8_trim_whitespace(table[name]) for name in ("text", "label")}
    blank = {name: pc.fill_null(pc.equal(values, ""), True).to_numpy() for name, values in trimmed.items()}
    for name, rows in blank.items():
        if rows.all():
            raise UserError(f"{served_by}: every {name} is blank")
    table = drop(table, blank["text"], "blank_text", dropped)
    return drop(table, blank["label"][~blank["text"]], "missing_label", dropped)


def without_conflicts(table: pa.Table, texts: np.ndarray, rule: str, dropped: dict[str, int], served_by: str) -> np.ndarray:
    """Rows (n,) whose text also stands with another label; raises UserError when the rule is to fail."""
    labels = pd.factorize(table["label"].to_numpy())[0]
    frame = pd.DataFrame({"text": texts, "label": labels}).groupby("text", sort=False)["label"]
    conflicting: np.ndarray = (frame.transform("min") != frame.transform("max")).to_numpy()
    if rule == "fail" and conflicting.any():
        rows = np.flatnonzero(texts == texts[conflicting.argmax()])
        first, other = rows[0], rows[labels[rows] != labels[rows[0]]][0]
        raise UserError(
            f"{served_by}: the messages with id {table['id'][first].as_py()} and {table['id'][other].as_py()} have the same"
            f" text but the labels {table['label'][first].as_py()!r} and {table['label'][other].as_py()!r};"
            " ingest.conflicts: drop leaves out both"
        )
    dropped["conflict"] = int(conflicting.sum())
    return conflicting


def assign_splits(
    labels: np.ndarray, names: list[str], groups: np.ndarray, settings: Ingest, feedback: pa.ChunkedArray
) -> np.ndarray:
    """Split index (n,) of each row; the last rows are feedback and bring theirs, unless their group has one already."""
    base = len(labels) - len(feedback)
    units = groups if settings.split == "grouped" else np.arange(len(groups))
    fractions = settings.fractions.model_dump()
    split = stratified_grouped_split(labels[:base], units[:base], fractions, settings.seed, names)
    if not len(feedback):
        return split
    own = pc.index_in(feedback, pa.array(SPLITS, feedback.type)).to_numpy()
    of_group = pd.Series(split).groupby(groups[:base]).first().reindex(groups[base:]).to_numpy()
    return np.concatenate([split, np.where(np.isnan(of_group), own, of_group).astype(np.int64)])


def main() -> None:
    settings = read_params().ingest
    rows, served_by = read_source(settings)
    print(f"ingest: {len(rows):,} rows from {served_by}", file=sys.stderr)
    rows = rows.set_column(2, "label", mapped(rows["label"], settings.label_map, served_by))
    total = len(rows)
    dropped: dict[str, int] = {}
    rows = without_blanks(rows, dropped, served_by)

    feedback = parquet.read_table(FEEDBACK)
    names = ["id", "text", "label"]
    table = pa.concat_tables([rows, feedback.select(names).cast(rows.schema)])
    own_split = pa.concat_tables([pa.table({"split": pa.nulls(len(rows), pa.string())}), feedback.select(["split"])])
    from_feedback = np.arange(len(table)) >= len(rows)

    texts = fingerprints(table["text"])
    conflicting = without_conflicts(table, texts, settings.conflicts, dropped, served_by)
    repeated = pd.Series(texts).duplicated().to_numpy() & ~conflicting if settings.deduplicate else np.zeros(len(table), bool)
    dropped["duplicate"] = int(repeated.sum())
    kept = ~(conflicting | repeated)
    table, own_split, from_feedback = table.filter(pa.array(kept)), own_split.filter(pa.array(kept)), from_feedback[kept]

    labels, found = pd.factorize(table["label"].to_numpy(), sort=True)
    names = [str(name) for name in found]
    if len(names) < 2:
        raise UserError(f"{served_by}: a single class ({names[0] if names else 'none'}) is left; expected at least two")
    groups = near_duplicate_groups(table["text"])
    split = assign_splits(labels, names, groups, settings, own_split["split"].filter(pa.array(from_feedback)))

    source = pa.array(np.where(from_feedback, "feedback", settings.source))
    table = table.append_column("group", pa.array(groups)).append_column("split", pa.array(np.array(SPLITS)[split]))
    with replaced(MESSAGES) as temporary:
        parquet.write_table(table.append_column("source", source), temporary, compression="zstd")
    counts = np.zeros((len(SPLITS), len(names)), dtype=int)
    np.add.at(counts, (split, labels), 1)
    write_json(
        INGEST,
        {
            "served_by": served_by,
            "rows": total,
            "kept": len(table),
            "dropped": dropped,
            "groups": int(groups.max()) + 1,
            "labels": dict(zip(names, counts.sum(axis=0).tolist(), strict=True)),
            "splits": {name: dict(zip(names, row.tolist(), strict=True)) for name, row in zip(SPLITS, counts, strict=True)},
            "feedback": int(from_feedback.sum()),
            "sha256": file_sha256(MESSAGES),
        },
    )
    print(
        f"ingest: {len(table):,} messages in {int(groups.max()) + 1:,} groups of near duplicates; dropped {dropped}",
        file=sys.stderr,
    )


if __name__ == "__main__":
    run(main, parser(__doc__).parse_args())
