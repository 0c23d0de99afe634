"""The HTML page `production/to_label/<window>.html`: people label the messages of a window with the keys of their keyboard."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from string import ascii_lowercase, digits
from typing import Any

from ballast.io.printable import printable
from stages.pages.html import STYLE, environment, script_hash, trusted_source
from stages.store.relabelled import cell

HERE = Path(__file__).parent
# One key for each class; classes without a key have a button. The keys u and s undo and skip.
KEYS = digits[1:] + "".join(letter for letter in ascii_lowercase if letter not in "us")


def labelling_page(window: str, rows: Sequence[Mapping[str, Any]], texts: Mapping[str, str], labels: Sequence[str]) -> str:
    """The page of a window: one message at a time, a button and a key for each class, and a file `id,label` to download.

    Parameters
    ----------
    rows : id, predicted, probability and why of each message, in the order in which they are shown.
    texts : id -> text.
    labels : the K classes.
    """
    script = trusted_source(HERE / "labelling.js")
    messages = [
        {
            "id": cell(row["id"]),
            "text": printable(texts[row["id"]], lines=True),
            "why": row["why"],
            "predicted": row["predicted"],
        }
        for row in rows
    ]
    return (
        environment(HERE)
        .get_template("labelling.html")
        .render(
            window=window,
            messages=messages,
            classes=[{"name": label, "key": KEYS[at] if at < len(KEYS) else ""} for at, label in enumerate(labels)],
            style=trusted_source(STYLE) + trusted_source(HERE / "labelling.css"),
            script=script,
            script_hash=script_hash(script),
        )
    )
