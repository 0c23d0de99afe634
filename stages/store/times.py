"""Times of messages, from text: ISO 8601 dates, ISO 8601 dates with a time of day, or epoch seconds."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from ballast.exceptions import UserError, short

DAY = r"^\d{4}-\d{2}-\d{2}"
CLOCK = r"[T ]\d{2}:\d{2}(:\d{2}([.]\d{1,9})?)?"
# Kinds of times. A column has one kind, because times of two kinds have no order.
KINDS = {
    "a date": f"{DAY}$",
    "a date and time": f"{DAY}{CLOCK}$",
    "a date and time with an offset": f"{DAY}{CLOCK}(Z|[+-]\\d{{2}}:?\\d{{2}})$",
    # From 1973 to 2033: 2024013112 is more likely a day with its hour.
    "epoch seconds": r"^1?\d{9}([.]\d{1,9})?$",
}
EXPECTED = (
    "expected one kind of time in all rows: 2024-01-31, 2024-01-31 12:34:56, 2024-01-31T12:34:56Z or +02:00, or epoch seconds"
    " such as 1706704496"
)


def parsed_times(column: pa.ChunkedArray, name: str, where: Callable[[int], str]) -> np.ndarray:
    """Microseconds since 1970 (n,) int64 of times as text (n,).

    Raises UserError that names the first row whose time is missing, invalid or of another kind than the first one.

    Examples
    --------
    >>> column = pa.chunked_array([["2024-01-31", "1970-01-02"]])
    >>> parsed_times(column, "sent", "a.csv: row {}".format) // 86_400_000_000
    array([19753,     1])
    """
    texts = pc.utf8_trim_whitespace(pc.fill_null(column, ""))
    kind = next((name for name, pattern in KINDS.items() if matches(texts[:1], pattern).all()), None)
    fits = np.zeros(len(texts), dtype=bool) if kind is None else matches(texts, KINDS[kind])
    valid = fits.copy()
    times: np.ndarray = np.zeros(len(texts), dtype=np.int64)
    if kind == "epoch seconds" and fits.all():
        times = np.round(texts.to_numpy().astype(np.float64) * 1e6).astype(np.int64)
    elif fits.all():
        days = pd.to_datetime(pd.Series(texts.to_numpy()), format="ISO8601", errors="coerce", utc=True)
        valid = days.notna().to_numpy()
        times = days[valid].dt.as_unit("us").astype(np.int64).to_numpy()
    if not valid.all():
        row = int(np.argmin(valid))
        raise UserError(
            f"{where(row)} has {what(texts[row].as_py(), kind, row)} in the column {name!r} (ingest.time_column); {EXPECTED}"
        )
    return times


def matches(texts: pa.ChunkedArray, pattern: str) -> np.ndarray:
    """Whether each of some texts (n,) matches a pattern."""
    found: np.ndarray = pc.match_substring_regex(texts, pattern).to_numpy()
    return found


def what(text: str, kind: str | None, row: int) -> str:
    """A value that is no valid time, in the words of an error.

    >>> what("31.01.2024", None, 0), what("2024-02-30", "a date", 4)
    ("the time '31.01.2024'", "the time '2024-02-30', which is no valid date")
    """
    if not text:
        return "no time"
    other = next((name for name, pattern in KINDS.items() if matches(pa.chunked_array([[text]]), pattern).all()), None)
    if kind is None or other is None:
        return f"the time {short(text)!r}"
    if other == kind:
        return f"the time {short(text)!r}, which is no valid date"
    return f"the time {short(text)!r}, {other}, but row 1 has {kind},"
