"""Why a value is not a valid text or id of a message."""

from __future__ import annotations

from typing import Any

from ballast.data.blank_text import is_blank
from stages.store.ids import malformed_number, malformed_spelling
from stages.tables.rows import is_utf8

PLAIN = (str, int, float)


def malformed_text(text: Any, longest: int) -> str | None:
    """Why a value is not a valid text of a message; None if it is one."""
    if text is None:
        return "no text"
    if not isinstance(text, str):
        return f"the text is not a string but {type(text).__name__}"
    if len(text) > longest:
        return f"the text has {len(text):,} characters, more than {longest:,} (production.score.longest_text)"
    if "\0" in text:
        return "the text has a NUL character"
    if not is_utf8(text):
        return "the text is not valid UTF-8"
    if is_blank(text):
        return "the text is blank"
    return None


def malformed_id(value: Any, longest: int) -> str | None:
    """Why a value is not a valid id; None if it is one, a string or a number."""
    if value is None or value == "":
        return "no id"
    if not isinstance(value, PLAIN) or isinstance(value, bool):
        return f"the id is not a string but {type(value).__name__}"
    if isinstance(value, str):
        if reason := malformed_spelling(value):
            return reason
        reason = malformed_text(value, longest)
        return reason and reason.replace("text", "id", 1)
    return malformed_number(value)
