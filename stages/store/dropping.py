"""Messages that ingest drops, counted by reason: without text or label, texts of two labels, and repeats."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
import pyarrow as pa

from ballast.data.blank_text import blank_rows
from ballast.data.near_duplicates import fingerprints
from ballast.exceptions import UserError
from stages.store.data_sections import FIXED_SPLITS, Ingest


def drop(table: pa.Table, doomed: np.ndarray, reason: str, dropped: dict[str, int]) -> pa.Table:
    """The table without the doomed (n,) rows, which are counted by reason."""
    dropped[reason] += int(doomed.sum())
    return table.filter(pa.array(~doomed)) if doomed.any() else table


def without_blanks(table: pa.Table, dropped: dict[str, int], served_by: str) -> pa.Table:
    """The table without rows that lack a text or a label; raises UserError if all do."""
    blank = {name: blank_rows(table[name]) for name in ("text", "label")}
    for name, rows in blank.items():
        if rows.all():
            raise UserError(f"{served_by}: every {name} is blank")
    table = drop(table, blank["text"], "blank_text", dropped)
    return drop(table, blank["label"][~blank["text"]], "missing_label", dropped)


def conflicts(table: pa.Table, texts: np.ndarray, rule: str, served_by: str) -> np.ndarray:
    """Whether the text of each row (n,) occurs with another label too; raises UserError if the rule is `fail`."""
    labels = pd.factorize(table["label"].to_numpy())[0]
    frame = pd.DataFrame({"text": texts, "label": labels}).groupby("text", sort=False)["label"]
    conflicting: np.ndarray = (frame.transform("min") != frame.transform("max")).to_numpy()
    if rule == "fail" and conflicting.any():
        rows = np.flatnonzero(texts == texts[conflicting.argmax()])
        first, other = rows[0], rows[labels[rows] != labels[rows[0]]][0]
        raise UserError(
            f"{served_by}: the messages with id {table['id'][first].as_py()} and {table['id'][other].as_py()} have the same"
            f" text but the labels {table['label'][first].as_py()!r} and {table['label'][other].as_py()!r};"
            " set ingest.conflicts: drop to drop both"
        )
    return conflicting


def without_repeats(table: pa.Table, settings: Ingest, dropped: dict[str, int], served_by: str) -> pa.Table:
    """The table without texts of two labels and, with `deduplicate`, without exact duplicates except the first.

    If the data determines the splits, each split is searched alone, so that no training message removes a test message.
    """
    texts = fingerprints(table["text"])
    if settings.split in FIXED_SPLITS:
        frame = pd.DataFrame({"text": texts, "split": table["split"].to_numpy()})
        texts = frame.groupby(["text", "split"], sort=False).ngroup().to_numpy()
    conflicting = conflicts(table, texts, settings.conflicts, served_by)
    repeated = pd.Series(texts).duplicated().to_numpy() & ~conflicting & settings.deduplicate
    table = drop(table, conflicting, "conflict", dropped)
    return drop(table, repeated[~conflicting], "duplicate", dropped)


def dropped_in_words(dropped: Mapping[str, int]) -> str:
    """How many messages were dropped for each reason, without reasons that dropped none.

    >>> dropped_in_words({"blank_text": 0, "conflict": 2, "duplicate": 1000})
    '2 (conflict), 1,000 (duplicate)'
    """
    counts = [f"{count:,} ({reason.replace('_', ' ')})" for reason, count in dropped.items() if count]
    return ", ".join(counts) or "none"
