"""Score messages with the deployed model.

Reads the messages of a window (a file, folder or pattern of csv, tsv, jsonl, json, parquet and xlsx files, local or at a URL
such as s3://) and the deployed version. Writes `production/scored/<window>.parquet` and, if some rows are malformed,
`production/quarantine/<window>.jsonl`. With the source - it scores each line of standard input at once, and writes one JSON
object per line to standard output.

The messages that the endpoint answered in the window are part of it, in the order of their answers. A message that the same
version answered keeps its probabilities; others are scored again, because a window has one version. The version that
`production.shadow` names scores the window too.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ballast.cli import parser, run
from ballast.exceptions import UserError
from ballast.io.paths import regular_file
from ballast.io.printable import counted
from ballast.io.urls import public_url
from ballast.models.base import Model
from stages.production.answered import last_version, path_of, read_answered
from stages.production.deployed import MANIFEST, Version, current_version, read_version
from stages.production.incoming import read_rows
from stages.production.malformed import malformed_text
from stages.production.rows import Row
from stages.production.scoring import Outputs, Scoring, columns_of, dialect_of, disk_full_as_user_error, score_rows
from stages.production.shadow import score_shadow, shadow_for
from stages.production.windows import WINDOW, quoted_name
from stages.store.files import LONGEST_NAME, locked, replaced
from stages.store.params import Params, read_params
from stages.store.project import PROJECT
from stages.tables.lines import TOO_LONG, LongLine, read_line, text_file

SECONDS_BETWEEN_LINES = 10.0


@dataclass
class Progress:
    """A progress bar in a terminal, a line every few seconds elsewhere."""

    bar: Any
    rows: int = 0
    started: float = field(default_factory=time.monotonic)
    printed: float = field(default_factory=time.monotonic)

    def add(self, rows: int) -> None:
        """Count more rows."""
        self.rows += rows
        self.bar.update(rows)
        now = time.monotonic()
        if self.bar.disable and now - self.printed >= SECONDS_BETWEEN_LINES:
            self.printed = now
            print(f"score: {self.rows:,} rows, {self.rows / (now - self.started):,.0f} a second", file=sys.stderr, flush=True)


def answered_rows(path: Path) -> Iterator[Row]:
    """The messages that the endpoint answered in a window, as rows."""
    for number, answer in enumerate(read_answered(path), 1):
        given = (answer.version, answer.answer["probabilities"])
        yield Row(str(path), number, answer.id, answer.text, answer=given)


def version_for(source: str | None, path: Path) -> Version:
    """The version to score with: the deployed one, or for answers alone the one that gave the last of them, if it exists."""
    if source is None and (last := last_version(path)) is not None:
        name, sha256 = last
        if (PROJECT.deployed / name / MANIFEST).is_file() and (version := read_version(name)).sha256 == sha256:
            return version
    return read_version(current_version())


def score_window(source: str | None, window: str, params: Params) -> None:
    """Score the messages of a source, if any, and those that the endpoint answered in the window.

    Raises UserError, after the quarantine is written, if too many rows are malformed.
    """
    answered_path = path_of(window)
    is_answered = regular_file(answered_path)
    if source is None and not is_answered:
        raise UserError(
            f"{answered_path}: no such file, so the endpoint answered nothing in this window; name a SOURCE to score"
        )
    version = version_for(source, answered_path)
    shadow = shadow_for(params, version)
    rows = chain(
        answered_rows(answered_path) if is_answered else (),
        () if source is None else read_rows(source, columns_of(params), dialect_of(params)),
    )
    scored_path, quarantine_path = PROJECT.scored / f"{window}.parquet", PROJECT.quarantine / f"{window}.jsonl"
    with (
        disk_full_as_user_error(scored_path),
        locked(scored_path),
        locked(quarantine_path),
        tqdm(desc="score", unit=" rows", disable=None) as bar,
    ):
        counts = score_rows(
            rows,
            window,
            str(answered_path) if source is None else public_url(source),
            Scoring(params=params, version=version, model=version.load()),
            Outputs(
                scored=replaced(scored_path),
                quarantine=replaced(quarantine_path),
                quarantine_name=str(quarantine_path),
            ),
            metadata=({"answered": str(answered_path)} if is_answered else {}) | ({"shadow": shadow} if shadow else {}),
            progress=Progress(bar).add,
        )
        if not counts.quarantined:
            quarantine_path.unlink()
    print(
        f"score: {window}: {counted(counts.scored, 'message')} scored with version {version.name}"
        + (f", {counts.cut_off:,} of them longer than the model reads" if counts.cut_off else "")
        + (f", {counted(counts.quarantined, 'row')} in {quarantine_path}" if counts.quarantined else ""),
        file=sys.stderr,
    )
    score_shadow(window, version, shadow)


def score_lines(longest: int, version: Version) -> None:
    """Score each line of standard input at once; the answer to a malformed line is an error."""
    model = version.load()
    with text_file(sys.stdin.buffer, newline="\n") as lines:
        while line := read_line(lines):
            print(json.dumps(answer(line, longest, model, version)), flush=True)


def answer(line: str | LongLine, longest: int, model: Model, version: Version) -> dict[str, Any]:
    """The label and probabilities of a line's message, and whether people decide it; or an error."""
    if isinstance(line, LongLine):
        return {"error": TOO_LONG}
    text = line.rstrip("\r\n")
    if reason := malformed_text(text, longest):
        return {"error": reason}
    probabilities, classes = version.score(model, [text])
    review = {} if version.review is None else {"review": bool(version.reviewed(probabilities)[0])}
    return {
        "label": version.labels[int(classes[0])],
        "probabilities": dict(zip(version.labels, probabilities[0].tolist(), strict=True)),
        **review,
    }


def main(source: str | None, window: str | None) -> None:
    params = read_params()
    if source == "-":
        if window is not None:
            raise UserError("--window names a window's file, but the scores of standard input go to standard output; omit it")
        score_lines(params.production.score.longest_text, read_version(current_version()))
        return
    if window is None or not WINDOW.fullmatch(window):
        raise UserError(
            f"--window is {quoted_name(window)}; expected a name such as 2026-01-31, of at most {LONGEST_NAME} letters, digits,"
            " dots, dashes and underscores"
        )
    score_window(source, window, params)


if __name__ == "__main__":
    arguments = parser(__doc__)
    arguments.add_argument(
        "source",
        nargs="?",
        metavar="SOURCE",
        help="a file, a folder or a URL such as s3://; - is standard input (default: only what the endpoint answered)",
    )
    arguments.add_argument("--window", metavar="NAME", help="the name of the file with the scores")
    run(main, arguments.parse_args())
