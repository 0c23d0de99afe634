"""Read labelled messages from csv, tsv, jsonl, parquet or the hub, with errors that name the file and the row."""

from __future__ import annotations

import codecs
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path, PurePosixPath

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv, json, parquet

import ballast.io.digest as digest
from ballast.exceptions import UserError, suggestion, user_error
from ballast.io.digest import file_sha256
from ballast.io.urls import file_name, file_path, public_url
from stages.store.places import check_file, error_text, file_system, is_url

FORMATS = {".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet"}
# A row must fit into a block, which holds a message of many megabytes.
BLOCK_BYTES = 1 << 26
SCAN_BYTES = 1 << 24
NEW_LINE = b"\n"
DEEPEST = 100
IN_QUOTES, BRACKETS = re.compile(rb'"(?:[^"\\]|\\.)*+"', re.DOTALL), re.compile(rb"[\[\]{}]")


@contextmanager
def local_copy(path: str) -> Iterator[Path]:
    """The file at a path or URL as a local file; raises UserError if it cannot be read."""
    if not is_url(path):
        yield check_file(path, "ingest.path")
        return
    with tempfile.TemporaryDirectory() as folder:
        local = Path(folder) / file_name(path)
        try:
            system, place = file_system(path)
            with system.open(place, "rb") as remote, local.open("wb") as file:
                shutil.copyfileobj(remote, file)
        except UserError:
            raise
        # Each kind of storage has its own errors.
        except Exception as error:
            raise user_error(f"{public_url(path)}: cannot be read: {error_text(error)} (ingest.path)", error) from error
        yield local


def undecodable(path: Path) -> str | None:
    """The place of the first byte that is not UTF-8, such as "line 7, byte 0xe9"; None if there is none."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    line = 1
    with path.open("rb") as file:
        while block := file.read(SCAN_BYTES):
            pending = decoder.getstate()[0]
            try:
                decoder.decode(block)
            except UnicodeDecodeError as error:
                joined = pending + block
                return f"line {line + joined[: error.start].count(NEW_LINE)}, byte 0x{joined[error.start]:02x}"
            line += block.count(NEW_LINE)
    return f"line {line}, cut off within a character" if decoder.getstate()[0] else None


def deep_line(path: Path) -> int | None:
    """The number of the first line of JSON that is nested so deeply that Arrow's reader would crash; None if there is none.

    Counts all brackets of a line first, and excludes those in strings only if there are many.
    """
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if line.count(b"[") + line.count(b"{") > DEEPEST and depth(line) > DEEPEST:
                return number
    return None


def depth(line: bytes) -> int:
    """The nesting depth of a line of JSON."""
    deepest = now = 0
    for bracket in BRACKETS.findall(IN_QUOTES.sub(b"", line)):
        now += 1 if bracket in b"[{" else -1
        deepest = max(deepest, now)
    return deepest


def check_content(path: Path, format_name: str, shown: str) -> None:
    """Raise UserError, with the line, for content for which Arrow's readers raise no clear error."""
    if format_name != "parquet" and (where := undecodable(path)):
        raise UserError(f"{shown}: not UTF-8 at {where}")
    if format_name == "jsonl" and (line := deep_line(path)):
        raise UserError(f"{shown}: line {line} is nested deeper than {DEEPEST} levels; expected one object of plain values")


def format_of(source: str, path: str) -> str:
    """The format by `ingest.source`, or by the extension of the file."""
    if source != "file":
        return source
    ending = PurePosixPath(file_path(path)).suffix.lower()
    if ending in FORMATS:
        return FORMATS[ending]
    raise UserError(f"{public_url(path)}: unknown format; set ingest.source to csv, tsv, jsonl or parquet")


def column_names(path: Path, format_name: str) -> list[str]:
    """Names of a file's columns, in order."""
    if format_name == "parquet":
        return list(parquet.read_schema(path).names)
    if format_name == "jsonl":
        return list(json.open_json(path, read_options=json.ReadOptions(block_size=BLOCK_BYTES)).schema.names)
    return list(csv_reader(path, format_name).schema.names)


def csv_reader(path: Path, format_name: str) -> csv.CSVStreamingReader:
    """A reader of a csv or tsv file's blocks."""
    return csv.open_csv(path, csv.ReadOptions(block_size=BLOCK_BYTES), csv_dialect(format_name))


def csv_dialect(format_name: str) -> csv.ParseOptions:
    """The dialect of csv and tsv: quoted fields may contain line ends."""
    return csv.ParseOptions(delimiter="\t" if format_name == "tsv" else ",", newlines_in_values=True)


def read_columns(path: Path, format_name: str, columns: list[str]) -> pa.Table:
    """Read the named columns of a file; raises pyarrow's errors."""
    if format_name == "parquet":
        with path.open("rb") as file:
            digest.check(file, required=False)
        return parquet.read_table(path, columns=columns, page_checksum_verification=True)
    if format_name == "jsonl":
        read = partial(json.read_json, path, json.ReadOptions(block_size=BLOCK_BYTES))
        table = read().select(columns)
        # A string that looks like a time stays a string.
        times = pa.schema([(field.name, pa.string()) for field in table.schema if pa.types.is_temporal(field.type)])
        return read(json.ParseOptions(explicit_schema=times)).select(columns) if times else table
    options = csv.ConvertOptions(include_columns=columns, column_types=dict.fromkeys(columns, pa.string()))
    # Only without threads do pyarrow's errors name the row.
    return csv.read_csv(path, csv.ReadOptions(block_size=BLOCK_BYTES, use_threads=False), csv_dialect(format_name), options)


def separator_hint(name: str, present: list[str]) -> str:
    """The end of an error about a missing column if the header of the file looks like one with another separator.

    >>> separator_hint("body", ["ticket;body;kind"])
    "; the columns seem to be separated by ';', expected ',' in csv and a tab in tsv"
    """
    if len(present) == 1:
        for separator in (";", "\t", "|", ","):
            if name in present[0].split(separator):
                return f"; the columns seem to be separated by {separator!r}, expected ',' in csv and a tab in tsv"
    return ""


def require_columns(path: str, present: list[str], wanted: dict[str, str]) -> None:
    """Raise UserError for a wanted column (params key -> name) that is missing or occurs twice."""
    for key, name in wanted.items():
        if name not in present:
            raise UserError(
                f"{path}: no column {name!r} (ingest.{key}): {suggestion(name, present)}{separator_hint(name, present)}"
            )
        if present.count(name) > 1:
            raise UserError(f"{path}: more than one column {name!r} (ingest.{key})")


def read_file(path: str, source: str, wanted: dict[str, str], sha256: str | None) -> pa.Table:
    """Read the wanted columns (params key -> column) of a local or remote file.

    Raises UserError that names the file, and the row where one is at fault.
    """
    format_name, shown = format_of(source, path), public_url(path)
    with local_copy(path) as local:
        if sha256 is not None and (actual := file_sha256(local)) != sha256:
            raise UserError(f"{shown}: sha256 is {actual}, ingest.sha256 pins {sha256}")
        if local.stat().st_size == 0:
            raise UserError(f"{shown}: empty file; expected rows with the columns {', '.join(wanted.values())}")
        check_content(local, format_name, shown)
        try:
            require_columns(shown, column_names(local, format_name), wanted)
            return read_columns(local, format_name, list(wanted.values()))
        except UserError:
            raise
        # Also errors of column names that are not UTF-8, and of numbers that are too large.
        except Exception as error:
            reason = " ".join(str(error).split())
            raise UserError(f"{shown}: cannot be read as {format_name}: {reason[:300]}") from error


def read_sms(path: Path) -> pa.Table:
    """Columns label and text of lines label<TAB>text, in which quotes have no special meaning."""
    return csv.read_csv(
        path,
        csv.ReadOptions(column_names=["label", "text"], block_size=BLOCK_BYTES),
        csv.ParseOptions(delimiter="\t", quote_char=False),
    )


def read_hub(name: str, config: str | None, split: str, revision: str | None, wanted: dict[str, str]) -> pa.Table:
    """Read the wanted columns of a hub data set; class indices are replaced by their names."""
    import datasets

    try:
        rows = datasets.load_dataset(name, config, split=split, revision=revision)
    except Exception as error:
        reason = " ".join(str(error).split())
        message = f"hub data set {public_url(name)} cannot be loaded: {type(error).__name__}: {reason[:200]}"
        raise user_error(message, error) from error
    require_columns(public_url(name), rows.column_names, wanted)
    table = rows.with_format("arrow")[:].select(list(wanted.values()))
    label_column = wanted["label_column"]
    feature = rows.features[label_column]
    if isinstance(feature, datasets.ClassLabel):
        at = pc.cast(table[label_column], pa.int64()).combine_chunks()
        # In hub data sets, -1 means no label.
        names = pa.array(feature.names).take(pc.if_else(pc.less(at, 0), None, at))
        table = table.set_column(table.column_names.index(label_column), label_column, names)
    return table
