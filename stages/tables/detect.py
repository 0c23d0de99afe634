"""Detect the dialect of a file: what is not set in `ingest.dialect` follows from the name and the content of the file.

The rules are in the manual (Own data). They use the whole file where a beginning could mislead: encoding, quotes, escapes.
"""

from __future__ import annotations

import io
import re
import zipfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

from ballast.exceptions import UserError, short
from stages.store.data_sections import DialectSettings
from stages.tables.delimited import records
from stages.tables.detect_quotes import detect_escape, header_and_rows_are_quoted, is_as_written, lines_of, stray_quotes
from stages.tables.dialect import FORMATS, NO_DELIMITER, TABS, Dialect, Format, endings, format_of_name
from stages.tables.encoding import detect_encoding, encoding_name
from stages.tables.excel import excel_dialect
from stages.tables.forms import forms_of
from stages.tables.json_rows import parsed
from stages.tables.lines import Lines, LongLine, binary_file, compression_of
from stages.tables.rows import UNNAMED, is_utf8

DELIMITERS = (",", ";", "\t", "|")
SAMPLE_LINES, SAMPLE_CHARACTERS = 500, 1 << 20
PREAMBLE = re.compile(r'^\ufeff?"?sep=(.)"?\s*$')
COLUMN_NUMBER = re.compile(rf"{UNNAMED}[1-9][0-9]*")
# What `ingest.source` may name, and the first bytes of files that are none of them.
BY_SOURCE: dict[str, Format] = {
    "csv": "csv", "tsv": "csv", "jsonl": "json", "json": "json", "parquet": "parquet", "xlsx": "xlsx"
}  # fmt: skip
PARQUET, ZIP, OLD_EXCEL = b"PAR1", b"PK\x03\x04", b"\xd0\xcf\x11\xe0"


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What the caller knows of a file.

    source : `ingest.source`; `file` lets name and content decide.
    dialect : the settings that overrule detection.
    setting : the key of params.yaml with these settings; empty if there is none.
    wanted : the columns to read, and the setting that names each.
    several : whether the file is one of several: an empty one then has no rows, as tools that write parts leave them.
    """

    wanted: Mapping[str, str]
    source: str = "file"
    dialect: DialectSettings = field(default_factory=DialectSettings)
    setting: str = "ingest.dialect"
    several: bool = False

    def advice(self, key: str) -> str:
        """The end of an error: which setting helps, or what to do with a file that has no settings."""
        return f"; set {self.setting}.{key}" if self.setting else "; save the file as csv with a header, in UTF-8"


def detect(path: Path, source: str, expected: Expected) -> Dialect:
    """The dialect of a local file; `source` is the name that errors show. Raises UserError, and errors of damaged files."""
    with path.open("rb") as file:
        head = file.read(8)
    compression = expected.dialect.compression or compression_of(head)
    format_name = format_of(source, path, expected, head)
    if format_name in ("parquet", "xlsx"):
        if compression != "none":
            raise UserError(
                f"{source}: is compressed with {compression}; {format_name} is read only uncompressed; unpack it first"
            )
        return excel_dialect(path) if format_name == "xlsx" else Dialect(format="parquet")
    refuse_binary(source, path, compression, format_name)
    given = expected.dialect.encoding
    encoding, others = (given, ()) if given else detect_encoding(path, compression, json=format_name == "json")
    dialect = Dialect(format=format_name, compression=compression, encoding=encoding, other_encodings=others)
    if format_name == "json":
        return replace(dialect, array=is_one_document(path, dialect))
    return detect_csv(path, source, dialect, expected)


def format_of(source: str, path: Path, expected: Expected, head: bytes) -> Format:
    """The format by `ingest.source`, or by the name of the file; raises UserError for an unknown one."""
    if expected.source != "file":
        return BY_SOURCE[expected.source]
    if (found := format_of_name(source, path.name)) is not None:
        return found
    if head.startswith(PARQUET):
        return "parquet"
    ending = (endings(source) or [""])[0]
    if head.startswith(ZIP) or ending == ".zip":
        raise UserError(f"{source}: is a zip archive{members(source, path, expected)}")
    if head.startswith(OLD_EXCEL) or ending == ".xls":
        raise UserError(f"{source}: is an old Excel file; save it as .xlsx or .csv")
    select = "; ingest.files selects files" if expected.several and expected.setting.startswith("ingest.") else ""
    raise UserError(
        f"{source}: unknown format {ending!r}; expected a name that ends in {', '.join(FORMATS)}, compressed or not;"
        f" rename it, or set ingest.source to {', '.join(BY_SOURCE)}{select}"
    )


def members(source: str, path: Path, expected: Expected) -> str:
    """The end of an error about an archive: how to name a file in it."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if not name.endswith("/")]
    except (zipfile.BadZipFile, OSError):
        return "; unpack it first"
    if not names:
        return " without a file"
    # DVC tracks the archive; it has no URLs of files in archives.
    if expected.setting.startswith("ingest."):
        return f'; name a file in it: set ingest.path: {source} and ingest.files: "{short(names[0])}"'
    return f"; name a file in it, such as zip://{short(names[0])}::{source}"


def refuse_binary(source: str, path: Path, compression: str, format_name: str) -> None:
    """Raise UserError for a file of another format under the name of a text."""
    with binary_file(path, compression) as file:
        head = file.read(8)
    for magic, words in (
        (PARQUET, "is a parquet file; rename it to end in .parquet, or set ingest.source: parquet"),
        (ZIP, "is a zip archive or a spreadsheet; if Excel opens it, rename it to end in .xlsx, else unpack it"),
        (OLD_EXCEL, "is an old Excel file; save it as .xlsx or .csv"),
    ):
        if head.startswith(magic):
            raise UserError(f"{source}: {words}; it was read as {format_name}")
    if (inner := compression_of(head)) != "none":
        words = (
            f"is compressed with {inner}" if compression == "none" else f"is compressed twice, with {compression} and {inner}"
        )
        raise UserError(f"{source}: {words}; it was read as {format_name}; unpack it once")


def is_one_document(path: Path, dialect: Dialect) -> bool:
    """Whether JSON is an array, or objects that span lines, and not one object per line."""
    lines = lines_of(path, dialect)
    with lines.file:
        try:
            first = next((line for line in lines if line.strip()), "").strip()
        except LongLine as long:
            return str(long).lstrip().startswith("[")
        if first.startswith("["):
            content, reason = parsed(first)
            # A line with a list of values is a malformed object, one with objects or an open bracket is an array.
            return reason is not None or not content or isinstance(content[0], dict)
        return first.startswith("{") and len(first) < SAMPLE_CHARACTERS and parsed(first)[1] is not None and opens(first)


def opens(line: str) -> bool:
    """Whether a line of invalid JSON may be the beginning of an object that spans lines.

    >>> opens("{"), opens('{"text": "a",'), opens('{"text": ')
    (True, True, False)
    """
    return line == "{" or line.endswith((",", "{", "["))


def sample_of(path: Path, dialect: Dialect, most: int = SAMPLE_LINES) -> list[str]:
    """At most the first `most` lines of a file that are not blank."""
    lines, characters = lines_of(path, dialect), 0
    sample: list[str] = []
    with lines.file:
        while len(sample) < most and characters < SAMPLE_CHARACTERS:
            try:
                line = next(lines, None)
            except LongLine:
                break
            if line is None:
                break
            if line.strip("\r\n"):
                sample.append(line)
                characters += len(line)
    return sample


def parsed_sample(sample: Sequence[str], dialect: Dialect) -> list[list[str]]:
    """The records of the first lines; malformed ones have no fields."""
    found = records(Lines(io.StringIO("".join(sample), newline=dialect.newline)), dialect)
    return [record.fields for record in islice(found, SAMPLE_LINES)]


def detect_csv(path: Path, source: str, dialect: Dialect, expected: Expected) -> Dialect:
    """The dialect of delimited text."""
    given = expected.dialect
    first = sample_of(path, replace(dialect, newline=""), most=1)
    dialect = replace(dialect, newline="" if first and first[0].endswith("\r") else "\n")
    sample = sample_of(path, dialect)
    preamble = PREAMBLE.match(sample[0]) if sample and given.delimiter is None else None
    if preamble:
        sample = sample[1:]
    if not sample:
        # Without a line there are no columns either.
        return dialect
    tabs = expected.source == "tsv" or (endings(source) or [""])[0] in TABS
    delimiters = ("\t", ",", ";", "|") if tabs else DELIMITERS
    candidates = [given.delimiter] if given.delimiter else [preamble[1]] if preamble else delimiters
    quotes = {None: ('"', "'"), "none": (None,)}.get(given.quote, (given.quote,))
    tried = [
        (score(made, sample, expected, order), made)
        for order, delimiter in enumerate(candidates)
        for quote in quotes
        for made in [replace(dialect, delimiter=delimiter, quote=quote, preamble=preamble is not None)]
    ]
    best = max(tried, key=lambda pair: pair[0])[1]
    best = with_columns(best, sample, source, expected)
    if len(best.columns) == 1 and given.delimiter is None and not preamble:
        best = replace(best, delimiter=NO_DELIMITER)
    if best.quote is None:
        return best
    escape = given.escape or detect_escape(path, best)
    best = replace(best, escape=escape)
    if given.quote is None and escape == "double" and (stray := stray_quotes(path, best)) is not None:
        return replace(best, quote=None, stray=stray)
    return best


def score(dialect: Dialect, sample: Sequence[str], expected: Expected, order: int) -> tuple[float, ...]:
    """How well a dialect fits the first lines: wanted columns in the first record, then records of constant length."""
    found = parsed_sample(sample, dialect)
    header = found[0] if found else []
    hits = sum(header.count(name) == 1 for name in expected.wanted)
    lengths = Counter(len(fields) for fields in found)
    several = sum(count for length, count in lengths.items() if length == len(header) > 1)
    # Apostrophes are more frequent than single quotes around fields.
    plain = dialect.quote != "'"
    return (hits, plain, several / max(1, len(found)), -order)


def with_columns(dialect: Dialect, sample: Sequence[str], source: str, expected: Expected) -> Dialect:
    """The dialect with its header or without one, and with the names of its columns."""
    found = parsed_sample(sample, dialect)
    header = found[0] if found else []
    names = [COLUMN_NUMBER.fullmatch(name) for name in expected.wanted]
    by_number = all(names) and not set(expected.wanted) & set(header)
    enclose = expected.dialect.quote == dialect.quote or is_as_written(sample, found, dialect)
    named = expected.dialect.header if expected.dialect.header is not None else not by_number
    if not named:
        lengths = Counter(len(fields) for fields in found if fields)
        count = max(lengths, key=lambda length: (lengths[length], length)) if lengths else 0
        columns = tuple(f"{UNNAMED}{number}" for number in range(1, count + 1))
        return replace(dialect, header=False, columns=columns, forms=forms_of(found, count), quotes_enclose=enclose)
    if not header:
        raise UserError(
            f"{source}: the first line must name the columns, but cannot be read: a quote in it is not closed"
            f"{expected.advice('quote: none, if quotes are data')}"
        )
    if not all(map(is_utf8, header)):
        raise UserError(
            f"{source}: the first line must name the columns, but it is not {encoding_name(dialect.encoding)}"
            f"{expected.advice('encoding, such as cp1252 or utf-16')}"
        )
    return replace(
        dialect,
        columns=tuple(header),
        forms=forms_of(found[1:], len(header)),
        quotes_enclose=enclose or header_and_rows_are_quoted(sample, len(found) - 1, header, dialect),
    )
