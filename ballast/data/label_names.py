"""One name for each label, however files and settings spell it."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterable, Mapping
from typing import TypeVar

from ballast.data.blank_text import is_blank
from ballast.exceptions import UserError
from ballast.labels import label_name

Value = TypeVar("Value")

# Invisible at the ends of a label: byte order marks, joiners, marks of direction. Inside they may belong to its spelling.
ZERO_WIDTH = "\u00ad\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f\ufeff"
ENDS = re.compile(rf"^[\s{ZERO_WIDTH}]+|[\s{ZERO_WIDTH}]+$")
WHOLE = re.compile(r"([+-]?[0-9]+)\.0+")


def clean_label(label: str) -> str:
    r"""A label in Unicode's composed form (NFC), without white space and zero-width characters at its ends; "" if it is blank.

    >>> clean_label(" spam\u00a0"), clean_label("\ufeffspam"), clean_label("cafe\u0301") == "caf\u00e9", clean_label("\u200b")
    ('spam', 'spam', True, '')
    """
    return "" if is_blank(label) else ENDS.sub("", unicodedata.normalize("NFC", label))


def without_type(label: str) -> str:
    """A label without what a reader of numbers and truth values adds: `True` is `true`, and 1.0 is 1.

    >>> without_type("TRUE"), without_type("1.0"), without_type("1.5"), without_type("Spam")
    ('true', '1', '1.5', 'Spam')
    """
    if label.lower() in ("true", "false"):
        return label.lower()
    whole = WHOLE.fullmatch(label)
    return whole[1] if whole else label


def same_label(name: object, labels: Collection[str]) -> str | None:
    """The label that a name in a file or setting means; None if there is none, or if there are several.

    A name in the same spelling, except for white space around it, comes first. Otherwise a truth value may have another case,
    because YAML and JSON write `true` where pandas writes `True`; and a whole number may have a decimal point, because pandas
    writes 1 as 1.0 in a column with missing values.

    >>> same_label("spam ", ["ham", "spam"]), same_label(True, ["False", "True"]), same_label("1.0", ["0", "1"])
    ('spam', 'True', '1')
    >>> same_label("Spam", ["ham", "spam"]), same_label(True, ["TRUE", "True"])
    (None, None)
    """
    written = label_name(name)
    for text in (written, clean_label(written)):
        if text in labels:
            return text
    same = [label for label in labels if without_type(label) == without_type(text)]
    return same[0] if len(same) == 1 else None


def label_meant(name: str, labels: Collection[str], label_map: Mapping[str, str] | None) -> str | None:
    """The label that a person's label means: one of the labels, else the one that the map gives to it; None if there is none.

    >>> label_meant("spam", ["ham", "spam"], None), label_meant("1", ["ham", "spam"], {"0": "ham", "1": "spam"})
    ('spam', 'spam')
    """
    label = same_label(name, labels)
    if label is None and label_map is not None and (value := same_label(name, label_map)) is not None:
        label = same_label(label_map[value], labels)
    return label


def spelled(values: Mapping[str, Value], labels: Collection[str], name: str) -> dict[str, Value]:
    """The mapping with its keys as the labels that they mean; keys that mean no label are only cleaned.

    Raises UserError, with the name of the mapping, for two keys that mean the same label.

    >>> spelled({"true": 0.1, "False ": 0.9}, ["False", "True"], "prior")
    {'True': 0.1, 'False': 0.9}
    """
    keys: dict[str, str] = {}
    texts = {key: key if key in labels else clean_label(label_name(key)) for key in values}
    others = set(labels) - set(texts.values())
    for key, text in texts.items():
        label = text if text in labels else same_label(text, others) or text
        if label in keys:
            raise UserError(f"{name}: the keys {keys[label]!r} and {key!r} mean the same label {label!r}; remove one of them")
        keys[label] = key
    return {label: values[key] for label, key in keys.items()}


def with_label_keys(parameters: Mapping[str, object], labels: Collection[str], technique: str) -> dict[str, object]:
    """The parameters of a technique, with the keys of their mappings as the labels that they mean.

    Raises UserError as `spelled` does.

    >>> with_label_keys({"weights": {"true": 5}, "beta": 0.9}, ["False", "True"], "class_weight")
    {'weights': {'True': 5}, 'beta': 0.9}
    """
    return {
        name: spelled(value, labels, f"{technique}.{name}") if isinstance(value, Mapping) else value
        for name, value in parameters.items()
    }


def look_alike(labels: Iterable[str]) -> list[list[str]]:
    """The labels that differ only in case, in width or in the white space between words, each group in order.

    >>> look_alike(["Spam", "ham", "spam", "not  spam"])
    [['Spam', 'spam']]
    """
    groups: dict[str, list[str]] = {}
    for label in sorted(labels):
        groups.setdefault(" ".join(unicodedata.normalize("NFKC", label).casefold().split()), []).append(label)
    return [group for group in groups.values() if len(group) > 1]
