"""The one kind of error that is the user's to mend."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from ballast.urls import hidden


class UserError(Exception):
    """Bad input or settings; the message is one line that says what was expected, and where.

    It is shown, logged and stored, so that it holds no secrets of URLs.
    """

    def __init__(self, message: object = "") -> None:
        super().__init__(hidden(str(message)))


def nearest(name: str, known: Iterable[str]) -> str:
    """Say which known name is meant: "did you mean 'focal'? known: baseline, focal"."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1)
    return (f"did you mean {close[0]!r}? " if close else "") + "known: " + ", ".join(names)
