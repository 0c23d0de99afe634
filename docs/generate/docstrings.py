"""Docstrings of small classes list their fields as "name : meaning"; Sphinx gets them as a list."""

from __future__ import annotations

import re

FIELD = re.compile(r"^(?P<names>\w+(?:, \w+)*) : (?P<meaning>.*)")
UNDERLINE = re.compile(r"^-{3,}$")


def listed_fields(lines: list[str]) -> list[str]:
    """Turn lines "name : meaning", with their indented continuations, into list items.

    A docstring with numpydoc sections stays as it is.
    """
    if any(UNDERLINE.match(line) for line in lines):
        return lines
    listed: list[str] = []
    within = False
    for line in lines:
        if field := FIELD.match(line):
            if not within and listed and listed[-1]:
                listed.append("")
            listed.append(f"* **{field['names']}**: {field['meaning']}")
            within = True
        elif within and line.startswith(" "):
            listed.append(f"  {line.strip()}")
        else:
            if within and line:
                listed.append("")
            within = False
            listed.append(line)
    return listed
