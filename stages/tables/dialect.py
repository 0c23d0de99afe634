"""The dialect of a file: format, compression, encoding, and for csv the delimiter, quotes and header; and its words."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal

from ballast.exceptions import short
from ballast.io.urls import file_path
from stages.tables.encoding import encoding_name
from stages.tables.forms import Form

Format = Literal["csv", "json", "parquet", "xlsx"]
Escape = Literal["double", "backslash"]
FORMATS: dict[str, Format] = {
    ".csv": "csv",
    ".tsv": "csv",
    ".tab": "csv",
    ".txt": "csv",
    ".jsonl": "json",
    ".ndjson": "json",
    ".json": "json",
    ".parquet": "parquet",
    ".xlsx": "xlsx",
}
# Endings of compressed files, which stand behind the ending of the format.
COMPRESSED = (".gz", ".zst", ".bz2", ".xz")
TABS = (".tsv", ".tab")
# A delimiter that no text contains: files of one column have none. A lone surrogate, because no decoder gives it.
NO_DELIMITER = "\ud802"


@dataclass(frozen=True, kw_only=True)
class Dialect:
    """How the rows of a file are written.

    other_encodings : those that are possible, too, if the encoding is uncertain.
    quote : the quote character of csv; None if quotes are data.
    escape : how a quote is written within quotes: twice, or after a backslash.
    header : whether the first line names the columns.
    columns : the names of the columns of csv, in order.
    newline : "" if a carriage return alone ends a line of csv, as on old Macs; else it is a character of a text.
    preamble : whether a line `sep=;` stands before the header, as spreadsheets write it.
    array : whether JSON is one array or a stream of objects, and not one object per line.
    sheet : the name of the sheet of a spreadsheet.
    unread : the names of its other sheets that have cells.
    forms : the columns of csv whose values have a form, by position, as the first rows show them.
    stray : how many quotes show that quotes are data, and the line of the first; None if there are none, or if it was set.
    quotes_enclose : whether it is certain that a quote at the start of a field opens it: the settings name the quote, the
        header and half of the rows are quoted, or the first lines are as a csv writer writes them.
    """

    format: Format
    compression: str = "none"
    encoding: str = "utf-8"
    other_encodings: tuple[str, ...] = ()
    delimiter: str = ","
    quote: str | None = '"'
    escape: Escape = "double"
    header: bool = True
    columns: tuple[str, ...] = ()
    newline: str = "\n"
    preamble: bool = False
    array: bool = False
    sheet: str = ""
    unread: tuple[str, ...] = ()
    forms: tuple[tuple[int, Form], ...] = ()
    quotes_enclose: bool = False
    stray: tuple[int, int] | None = None

    def in_words(self) -> str:
        r"""The dialect in one line.

        >>> Dialect(format="csv", delimiter=";", compression="gzip", escape="backslash").in_words()
        'csv, gzip, UTF-8, delimiter \';\', quote \'"\' (escaped by a backslash), header'
        >>> Dialect(format="json", array=True).in_words()
        'json (an array of objects), UTF-8'
        """
        compression = "" if self.compression == "none" else f", {self.compression}"
        if self.format == "parquet":
            return f"parquet{compression}"
        if self.format == "xlsx":
            others = f"; other sheets are not read: {short(', '.join(map(repr, self.unread)))}" if self.unread else ""
            return f"xlsx, sheet {short(self.sheet)!r}{others}"
        perhaps = f" (uncertain, perhaps {' or '.join(self.other_encodings)}: if texts look wrong, set dialect.encoding)"
        encoding = f"{compression}, {encoding_name(self.encoding)}{perhaps if self.other_encodings else ''}"
        if self.format == "json":
            return f"json ({'an array of objects' if self.array else 'one object per line'}){encoding}"
        delimiter = "one column" if self.delimiter == NO_DELIMITER else f"delimiter {self.delimiter!r}"
        quote = "quotes are data" if self.quote is None else f"quote {self.quote!r}"
        escaped = " (escaped by a backslash)" if self.quote is not None and self.escape == "backslash" else ""
        header = "header" if self.header else f"no header ({len(self.columns)} columns)"
        return f"csv{encoding}, {delimiter}, {quote}{escaped}, {header}"


def endings(name: str) -> list[str]:
    """The endings of a file's name, a URL's too, without that of a compression, the last first.

    >>> endings("https://host/messages.csv.gz?signature=1"), endings("a.b.TSV")
    (['.csv'], ['.tsv', '.b'])
    """
    found = [ending.lower() for ending in PurePosixPath(file_path(name)).suffixes]
    if len(found) > 1 and found[-1] in COMPRESSED:
        found.pop()
    return found[::-1]


def format_of_name(*names: str) -> Format | None:
    """The format by the ending of the first name that has a known one; None if none has."""
    for name in names:
        if (found := endings(name)) and found[0] in FORMATS:
            return FORMATS[found[0]]
    return None
