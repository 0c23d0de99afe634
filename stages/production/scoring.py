"""Score rows with a version of the model: messages are scored, malformed rows go to quarantine."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa

from ballast.data.text_lengths import count_longer
from ballast.exceptions import UserError
from ballast.models.base import Model
from stages.production.deployed import Version
from stages.production.malformed import malformed_id, malformed_text
from stages.production.rows import Columns, Row
from stages.store.checked import table_writer
from stages.store.data_sections import DialectSettings
from stages.store.groups import groups_of
from stages.store.params import Params
from stages.tables.rows import excerpt, place

# Rows scored at once: enough to batch texts of similar length and to find repeated texts. Fewer if the texts are long.
CHUNK_ROWS, CHUNK_CHARACTERS = 20_000, 1 << 24


@dataclass
class Seen:
    """Fingerprints of all ids so far, 8 bytes each; two of a million ids share one with probability 3e-8.

    The fingerprints are in sorted arrays, each more than twice as long as the next. So few arrays are searched, and each
    fingerprint is sorted only a few times.
    """

    runs: list[np.ndarray] = field(default_factory=list)

    def repeated(self, ids: list[str]) -> np.ndarray:
        """Whether each of the ids (n,) has occurred before; all of them are remembered."""
        prints = pd.util.hash_array(np.array(ids, dtype=object), categorize=False)
        repeated = pd.Series(prints).duplicated().to_numpy()
        for run in self.runs:
            repeated = repeated | (run[np.searchsorted(run, prints).clip(max=len(run) - 1)] == prints)
        new = np.sort(prints[~repeated])
        while self.runs and len(self.runs[-1]) <= 2 * len(new):
            new = np.sort(np.concatenate([self.runs.pop(), new]), kind="stable")
        if len(new):
            self.runs.append(new)
        return repeated


@dataclass
class Quarantine:
    """Writes malformed rows, one JSON object per line, and counts them."""

    file: IO[str]
    count: int = 0
    first: str = ""

    def add(self, row: Row, reason: str) -> None:
        """Write a row with the reason."""
        if not self.count:
            self.first = f"{place(row.source, row.number, row.line)}: {reason}"
        self.count += 1
        value = {
            "row": row.number,
            "line": row.line,
            "source": excerpt(row.source),
            "id": None if row.id is None else excerpt(row.id),
            "reason": excerpt(reason),
            "excerpt": "" if row.text is None else excerpt(row.text),
        }
        self.file.write(json.dumps(value, ensure_ascii=False) + "\n")


@dataclass(frozen=True, kw_only=True)
class Scoring:
    """The settings and the model to score with."""

    params: Params
    version: Version
    model: Model


class Counts(NamedTuple):
    """Rows of a window: scored, quarantined, and scored messages that the model does not read to the end.

    cut_off : None if the model reads texts of any length.
    """

    scored: int
    quarantined: int
    cut_off: int | None


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """Where to write: context managers that yield a file, which counts only if no error is raised.

    quarantine_name : the name of the quarantine file in messages.
    """

    scored: AbstractContextManager[Path]
    quarantine: AbstractContextManager[Path]
    quarantine_name: str


def messages(rows: Iterable[Row], quarantine: Quarantine, longest: int) -> Iterator[Row]:
    """The rows that are messages; the others go to quarantine."""
    for row in rows:
        if reason := row.reason or malformed_text(row.text, longest) or malformed_id(row.id, longest):
            quarantine.add(row, reason)
        else:
            yield row


def chunks(rows: Iterable[Row]) -> Iterator[list[Row]]:
    """The rows in lists of limited size, so that memory is bounded."""
    chunk: list[Row] = []
    characters = 0
    for row in rows:
        chunk.append(row)
        characters += len(row.text or "")
        if len(chunk) == CHUNK_ROWS or characters >= CHUNK_CHARACTERS:
            yield chunk
            chunk, characters = [], 0
    if chunk:
        yield chunk


def without_repeated_ids(chunk: list[Row], seen: Seen, quarantine: Quarantine) -> list[Row]:
    """The rows whose id has not occurred before; the others go to quarantine."""
    repeated = seen.repeated([str(row.id) for row in chunk])
    for at in np.flatnonzero(repeated):
        quarantine.add(chunk[at], "an earlier row has the same id")
    return [row for row, again in zip(chunk, repeated, strict=True) if not again]


def numbered(rows: Iterable[Row], window: str) -> Iterator[Row]:
    """The rows with an id that is unique over all windows: the window's name and the row's number in the window.

    Rows of messages that were answered already keep their ids, and do not count.
    """
    number = 0
    for row in rows:
        if row.answer is None:
            number += 1
            yield row._replace(id=f"{window}-{number}")
        else:
            yield row


def columns_of(params: Params) -> Columns:
    """The columns of the text and the id, and the settings that name them."""
    score, ingest = params.production.score, params.ingest
    text, text_setting = ingest.text_column, "ingest.text_column"
    if score.text_column is not None:
        text, text_setting = score.text_column, "production.score.text_column"
    id_, id_setting = ingest.id_column, "ingest.id_column"
    if score.id_column is not None:
        id_, id_setting = score.id_column, "production.score.id_column"
    return Columns(text=text, id=id_, settings={text: text_setting} | ({} if id_ is None else {id_: id_setting}))


def dialect_of(params: Params) -> DialectSettings:
    """What overrules the detection of dialects: the settings of scoring, or else those of the training data."""
    return params.production.score.dialect or params.ingest.dialect


def schema(version: Version) -> pa.Schema:
    """The columns of a scored window; `review` only if people decide some messages."""
    probabilities = [(f"p_{label}", pa.float64()) for label in version.labels]
    review = [] if version.review is None else [("review", pa.bool_())]
    return pa.schema(
        [
            ("id", pa.string()),
            ("text", pa.string()),
            ("group", pa.int64()),
            *probabilities,
            ("label", pa.string()),
            ("model", pa.string()),
            *review,
        ]
    )


def probabilities_of(chunk: list[Row], model: Model, version: Version) -> np.ndarray:
    """Probabilities (n, K) of the rows of a chunk; those that this version answered already keep theirs."""
    answered = np.array([row.answer is not None and row.answer[0] == version.sha256 for row in chunk], dtype=bool)
    probabilities = np.empty((len(chunk), len(version.labels)))
    given = [
        [row.answer[1][label] for label in version.labels]
        for row, has in zip(chunk, answered, strict=True)
        if has and row.answer
    ]
    if given:
        probabilities[answered] = given
    if not answered.all():
        texts = [row.text or "" for row, has in zip(chunk, answered, strict=True) if not has]
        probabilities[~answered] = version.score(model, texts)[0]
    return probabilities


def scored_table(chunk: list[Row], model: Model, version: Version) -> pa.Table:
    """The rows of a chunk with their probabilities and labels."""
    texts = [row.text or "" for row in chunk]
    probabilities = probabilities_of(chunk, model, version)
    classes = version.decisions(probabilities)
    groups = groups_of(texts)
    columns = [
        [str(row.id) for row in chunk],
        texts,
        groups,
        *np.ascontiguousarray(probabilities.T),
        np.array(version.labels)[classes],
        [version.name] * len(chunk),
    ]
    if version.review is not None:
        columns.append(version.reviewed(probabilities))
    return pa.table(columns, schema=schema(version))


@contextmanager
def disk_full_as_user_error(path: Path | str) -> Iterator[None]:
    """Raise UserError if the disk is full."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise UserError(f"{path}: not written, because the disk is full; an earlier file of this name is unchanged") from error


def score_rows(
    rows: Iterable[Row],
    window: str,
    source: str,
    scoring: Scoring,
    outputs: Outputs,
    *,
    metadata: Mapping[str, Any],
    progress: Callable[[int], None],
) -> Counts:
    """Write the scored messages and the quarantined rows; returns how many there are of each.

    metadata : stored with the scores, beside the counts and the version.

    Raises UserError, after the quarantine is written, if too many rows are malformed.
    """
    columns, settings, version = columns_of(scoring.params), scoring.params.production.score, scoring.version
    seen, count, cut_off = Seen(), 0, None
    if columns.id is None:
        rows = numbered(rows, window)
    with outputs.scored as scored_path:
        with (
            outputs.quarantine as quarantine_path,
            quarantine_path.open("w", encoding="utf-8") as file,
            # Without Arrow's own schema, every reader of parquet finds the metadata.
            table_writer(scored_path, schema(version), compression="zstd", store_schema=False) as writer,
        ):
            quarantine = Quarantine(file)
            for chunk in chunks(messages(rows, quarantine, settings.longest_text)):
                fresh = without_repeated_ids(chunk, seen, quarantine)
                if fresh:
                    writer.write_table(scored_table(fresh, scoring.model, version))
                    of_chunk = count_longer([row.text or "" for row in fresh], scoring.model.token_counts)
                    cut_off = of_chunk if cut_off is None or of_chunk is None else cut_off + of_chunk
                count += len(fresh)
                progress(len(chunk))
            total = count + quarantine.count
            counts = {"rows": total, "scored": count, "quarantined": quarantine.count}
            if cut_off is not None:
                counts["cut_off"] = cut_off
            origin = {"window": window, "source": source, "model": version.name, "sha256": version.sha256}
            writer.add_key_value_metadata({"ballast": json.dumps({**metadata, **counts, **origin}, sort_keys=True)})
        if (share := quarantine.count / max(1, total)) > settings.quarantine:
            raise UserError(
                f"{source}: {quarantine.count:,} of {total:,} rows are malformed, {share:.1%}, more than"
                f" {settings.quarantine:.1%} (production.score.quarantine), so nothing was scored; they are in"
                f" {outputs.quarantine_name}, the first is {quarantine.first}"
            )
    return Counts(count, quarantine.count, cut_off)
