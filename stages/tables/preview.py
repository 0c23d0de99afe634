"""What ingest reads, in words: a line about each dialect, and a preview of the rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ballast.exceptions import short
from ballast.io.printable import counted, one_line
from stages.store.dropping import dropped_in_words
from stages.tables.training import Read

ROWS, SHOWN, LABELS = 5, 60, 50


def dialects_in_words(reads: Sequence[Read]) -> list[str]:
    """What was detected, one line for each dialect, and the remarks; a single file is named."""
    files: dict[str, list[str]] = {}
    for read in reads:
        for file, dialect in zip(read.places.files, read.dialects, strict=True):
            files.setdefault(dialect, []).append(file)
    words = [
        f"{names[0] if len(names) == 1 else counted(len(names), 'file')}: {dialect}" for dialect, names in sorted(files.items())
    ]
    return words + [remark for read in reads for remark in read.remarks.in_words()]


def read_in_words(read: Read) -> list[str]:
    """What was detected, one line for each dialect, and what was counted.

    The counts add up: records are rows and rejected rows; lines are those of the files.
    """
    words = dialects_in_words([read])
    lines = "" if read.lines is None else f"{counted(read.lines, 'line')}, "
    rejected = sum(read.rejected_by_reason.values())
    reasons = ", ".join(f"{count:,} ({reason})" for reason, count in sorted(read.rejected_by_reason.items()))
    counts = f"{lines}{counted(read.records, 'record')}, {counted(rejected, 'rejected row')}"
    words.append(f"{counts}: {reasons}" if reasons else counts)
    return words


def about(reads: Sequence[Read]) -> dict[str, Any]:
    """The counts of all files as `data/ingest.json` holds them."""
    reasons: Counter[str] = Counter()
    for read in reads:
        reasons.update(read.rejected_by_reason)
    lines = [read.lines for read in reads]
    return {
        "files": sum(len(read.places.files) for read in reads),
        **({} if None in lines else {"lines": sum(count or 0 for count in lines)}),
        "records": sum(read.records for read in reads),
        "rejected": dict(reasons),
        "dialect": sorted({words for read in reads for words in read.dialects}),
    }


def preview_lines(rows: pa.Table, labels: pa.ChunkedArray, reads: Sequence[Read], dropped: Mapping[str, int]) -> list[str]:
    """Lines that show the first rows, the rejected rows, the classes, and how many rows would be dropped and why."""
    lines = ["first rows:"]
    for row in rows.slice(0, ROWS).select(["id", "label", "text"]).to_pylist():
        shown = {name: "(missing)" if value is None else repr(one_line(value, SHOWN)) for name, value in row.items()}
        lines.append(f"  id {shown['id']}, label {shown['label']}: {shown['text']}")
    rejected = [row for read in reads for row in read.rejected]
    for row in rejected[:ROWS]:
        lines.append(f"rejected: {row.place}: {row.reason}, {one_line(row.excerpt, SHOWN)!r}")
    counts = {entry["values"]: entry["counts"] for entry in pc.value_counts(labels).to_pylist()}
    missing = counts.pop(None, 0)
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    words = ", ".join(f"{short(name)!r} {count:,}" for name, count in ordered[:LABELS])
    more = f" and {len(ordered) - LABELS:,} more" if len(ordered) > LABELS else ""
    lines.append(f"{counted(len(ordered), 'label')}: {words}{more}" + (f"; without a label: {missing:,}" if missing else ""))
    if len(ordered) < 2:
        lines.append(f"ingest would fail: it expects at least two labels, but {counted(len(ordered), 'label')} is left")
    lines.append(f"would be dropped: {dropped_in_words(dropped)}")
    return lines
