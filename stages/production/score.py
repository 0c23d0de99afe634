"""Score messages with the deployed model.

Reads the messages of a window (a file or a folder of csv, tsv, jsonl and parquet files, here or at a URL such as s3://) and the
deployed version; writes `production/scored/<window>.parquet` and, of rows that are no messages,
`production/quarantine/<window>.jsonl`. With the source - it scores one message a line from standard input at once, and writes
one JSON object a line to standard output.
"""

from __future__ import annotations

import errno
import json
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
import pandas as pd
import pyarrow as pa
from tqdm import tqdm

from ballast.cli import parser, run
from ballast.exceptions import UserError
from ballast.io.urls import public_url
from ballast.models.base import Model
from stages.production.deployed import Version, current_version, read_version
from stages.production.incoming import (
    TOO_LONG,
    Columns,
    LongLine,
    Row,
    excerpt,
    malformed_id,
    malformed_text,
    read_line,
    read_rows,
    text_file,
)
from stages.store.checked import table_writer
from stages.store.files import LONGEST_NAME, locked, replaced
from stages.store.groups import groups_of
from stages.store.params import Params, read_params
from stages.store.project import PROJECT

WINDOW = re.compile(rf"(?!index$)[A-Za-z0-9][A-Za-z0-9._-]{{0,{LONGEST_NAME - 1}}}")
# Rows that are scored at once: enough to find batches of similar length, and repeats. Of long messages fewer.
CHUNK_ROWS, CHUNK_CHARACTERS = 20_000, 1 << 24
SECONDS_BETWEEN_LINES = 10.0


@dataclass
class Seen:
    """Fingerprints of the ids so far, 8 bytes each; two ids of a million share one with probability 3e-8.

    They are in sorted arrays of which each is more than twice as long as the next, so that few are searched and each
    fingerprint is sorted few times.
    """

    runs: list[np.ndarray] = field(default_factory=list)

    def repeated(self, ids: list[str]) -> np.ndarray:
        """Which of the ids (n,) came before, among them or earlier; they are remembered."""
        prints = pd.util.hash_array(np.array(ids, dtype=object), categorize=False)
        known = pd.Series(prints).duplicated().to_numpy()
        for each in self.runs:
            known = known | (each[np.searchsorted(each, prints).clip(max=len(each) - 1)] == prints)
        new = np.sort(prints[~known])
        while self.runs and len(self.runs[-1]) <= 2 * len(new):
            new = np.sort(np.concatenate([self.runs.pop(), new]), kind="stable")
        if len(new):
            self.runs.append(new)
        return known


@dataclass
class Quarantine:
    """Writes rows that are no messages, a JSON object a line, and counts them."""

    file: IO[str]
    count: int = 0
    first: str = ""

    def add(self, row: Row, reason: str) -> None:
        """Write a row with the reason."""
        if not self.count:
            self.first = f"{row.source}, row {row.number}: {reason}"
        self.count += 1
        value = {
            "row": row.number,
            "source": excerpt(row.source),
            "id": None if row.id is None else excerpt(row.id),
            "reason": excerpt(reason),
            "excerpt": "" if row.text is None else excerpt(row.text),
        }
        self.file.write(json.dumps(value, ensure_ascii=False) + "\n")


@dataclass
class Progress:
    """A bar in a terminal, a line now and then in a log."""

    bar: Any
    rows: int = 0
    began: float = field(default_factory=time.monotonic)
    told: float = field(default_factory=time.monotonic)

    def add(self, rows: int) -> None:
        """More rows are done."""
        self.rows += rows
        self.bar.update(rows)
        now = time.monotonic()
        if self.bar.disable and now - self.told >= SECONDS_BETWEEN_LINES:
            self.told = now
            print(f"score: {self.rows:,} rows, {self.rows / (now - self.began):,.0f} a second", file=sys.stderr, flush=True)


def messages(rows: Iterable[Row], quarantine: Quarantine, longest: int) -> Iterator[Row]:
    """The rows that are messages; the others go to quarantine."""
    for row in rows:
        if reason := row.reason or malformed_text(row.text, longest) or malformed_id(row.id, longest):
            quarantine.add(row, reason)
        else:
            yield row


def chunks(rows: Iterable[Row]) -> Iterator[list[Row]]:
    """The rows, as many at once as may be kept in memory."""
    chunk: list[Row] = []
    characters = 0
    for row in rows:
        chunk.append(row)
        characters += len(row.text)
        if len(chunk) == CHUNK_ROWS or characters >= CHUNK_CHARACTERS:
            yield chunk
            chunk, characters = [], 0
    if chunk:
        yield chunk


def first_of_id(chunk: list[Row], seen: Seen, quarantine: Quarantine) -> list[Row]:
    """The rows whose id no earlier row has; the others go to quarantine."""
    repeated = seen.repeated([str(row.id) for row in chunk])
    for at in np.flatnonzero(repeated):
        quarantine.add(chunk[at], "the id is that of an earlier row")
    return [row for row, again in zip(chunk, repeated, strict=True) if not again]


def schema(version: Version) -> pa.Schema:
    """The columns of a scored window."""
    probabilities = [(f"p_{label}", pa.float64()) for label in version.labels]
    return pa.schema(
        [
            ("id", pa.string()),
            ("text", pa.string()),
            ("group", pa.int64()),
            *probabilities,
            ("label", pa.string()),
            ("model", pa.string()),
        ]
    )


def scored_table(chunk: list[Row], model: Model, version: Version) -> pa.Table:
    """The rows of a chunk with what the model says of them."""
    texts = [row.text for row in chunk]
    probabilities, classes = version.score(model, texts)
    groups = groups_of(texts)
    columns = [
        [str(row.id) for row in chunk],
        texts,
        groups,
        *np.ascontiguousarray(probabilities.T),
        np.array(version.labels)[classes],
        [version.name] * len(chunk),
    ]
    return pa.table(columns, schema=schema(version))


def columns_of(params: Params) -> Columns:
    """Which columns hold the text and the id, and the settings that say so."""
    score, ingest = params.production.score, params.ingest
    text, text_setting = ingest.text_column, "ingest.text_column"
    if score.text_column is not None:
        text, text_setting = score.text_column, "production.score.text_column"
    id_, id_setting = ingest.id_column, "ingest.id_column"
    if score.id_column is not None:
        id_, id_setting = score.id_column, "production.score.id_column"
    return Columns(text=text, id=id_, settings={text: text_setting} | ({} if id_ is None else {id_: id_setting}))


@contextmanager
def told_of_full_disk(path: Path | str) -> Iterator[None]:
    """Raises UserError where a disk is full."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise UserError(f"{path}: not written, the disk is full; what stood there before is as it was") from error


def score_rows(
    rows: Iterable[Row],
    name: str,
    source: str,
    params: Params,
    version: Version,
    model: Model,
    *,
    scored_file: AbstractContextManager[Path],
    quarantine_file: AbstractContextManager[Path],
    quarantine_name: str,
    about: Mapping[str, Any],
    progress: Callable[[int], None],
) -> tuple[int, int]:
    """Write rows with what the model says of them, and those that are no messages: how many of each.

    The files are places to write to, which count only when no error is raised; what more there is to say `about` the scores is
    kept with them. Raises UserError after writing the quarantine where too many rows are malformed.
    """
    columns, settings = columns_of(params), params.production.score
    seen, count = Seen(), 0
    if columns.id is None:
        rows = numbered(rows, name)
    with scored_file as scored_path:
        with (
            quarantine_file as quarantine_path,
            quarantine_path.open("w", encoding="utf-8") as file,
            # Without Arrow's own schema whatever reads parquet finds the metadata.
            table_writer(scored_path, schema(version), compression="zstd", store_schema=False) as writer,
        ):
            quarantine = Quarantine(file)
            for chunk in chunks(messages(rows, quarantine, settings.longest_text)):
                fresh = chunk if columns.id is None else first_of_id(chunk, seen, quarantine)
                if fresh:
                    writer.write_table(scored_table(fresh, model, version))
                count += len(fresh)
                progress(len(chunk))
            total = count + quarantine.count
            counts = {"rows": total, "scored": count, "quarantined": quarantine.count}
            origin = {"window": name, "source": source, "model": version.name, "sha256": version.sha256}
            writer.add_key_value_metadata({"ballast": json.dumps({**about, **counts, **origin}, sort_keys=True)})
        if (share := quarantine.count / max(1, total)) > settings.quarantine:
            raise UserError(
                f"{source}: {quarantine.count:,} of {total:,} rows are malformed, {share:.1%}, more than"
                f" {settings.quarantine:.1%} (production.score.quarantine), so nothing was scored; they are in"
                f" {quarantine_name}, the first is {quarantine.first}"
            )
    return count, quarantine.count


def score_window(source: str, window: str, params: Params, version: Version) -> None:
    """Score a window; raises UserError after writing the quarantine where too many rows are malformed."""
    scored_path, quarantine_path = PROJECT.scored / f"{window}.parquet", PROJECT.quarantine / f"{window}.jsonl"
    shown = public_url(source)
    with (
        told_of_full_disk(scored_path),
        locked(scored_path),
        locked(quarantine_path),
        tqdm(desc="score", unit=" rows", disable=None) as bar,
    ):
        count, quarantined = score_rows(
            read_rows(source, columns_of(params)),
            window,
            shown,
            params,
            version,
            version.load(),
            scored_file=replaced(scored_path),
            quarantine_file=replaced(quarantine_path),
            quarantine_name=str(quarantine_path),
            about={},
            progress=Progress(bar).add,
        )
        if not quarantined:
            quarantine_path.unlink()
    print(
        f"score: {window}: {count:,} messages scored with version {version.name}"
        + (f", {quarantined:,} rows in {quarantine_path}" if quarantined else ""),
        file=sys.stderr,
    )


def numbered(rows: Iterable[Row], window: str) -> Iterator[Row]:
    """The rows with an id that no other window has: its name, and their number in it, counted through all of its files."""
    for number, row in enumerate(rows, 1):
        yield row._replace(id=f"{window}-{number}")


def score_lines(longest: int, version: Version) -> None:
    """Score each line of standard input at once; a line that is no message is answered with an error."""
    model = version.load()
    with text_file(sys.stdin.buffer, newline="\n") as lines:
        while line := read_line(lines):
            print(json.dumps(answer(line, longest, model, version)), flush=True)


def answer(line: str | LongLine, longest: int, model: Model, version: Version) -> dict[str, Any]:
    """Label and probabilities of a line's message, or what is wrong with it."""
    if isinstance(line, LongLine):
        return {"error": TOO_LONG}
    text = line.rstrip("\r\n")
    if reason := malformed_text(text, longest):
        return {"error": reason}
    probabilities, classes = version.score(model, [text])
    return {
        "label": version.labels[int(classes[0])],
        "probabilities": dict(zip(version.labels, probabilities[0].tolist(), strict=True)),
    }


def quoted(name: str | None) -> str:
    """A name as an error shows it, of which the beginning is enough."""
    return repr(name) if name is None or len(name) <= LONGEST_NAME else f"{name[:40]!r}... ({len(name):,} characters)"


def main(source: str, window: str | None) -> None:
    params = read_params()
    if source == "-":
        if window is not None:
            raise UserError("--window names a window's file; lines of standard input are written to standard output")
        score_lines(params.production.score.longest_text, read_version(current_version()))
        return
    if window is None or not WINDOW.fullmatch(window):
        raise UserError(
            f"--window is {quoted(window)}; expected a name such as 2026-01-31, of at most {LONGEST_NAME} letters, digits, dots"
            " and dashes"
        )
    score_window(source, window, params, read_version(current_version()))


if __name__ == "__main__":
    arguments = parser(__doc__)
    arguments.add_argument("source", metavar="SOURCE", help="a file, a folder or a URL such as s3://; - is standard input")
    arguments.add_argument("--window", metavar="NAME", help="the name of the file with the scores")
    run(main, arguments.parse_args())
