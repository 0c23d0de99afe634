"""Labels of training data: one name for each, mapped by `ingest.label_map`, and checked."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Callable, Collection, Iterable, Mapping

import pyarrow as pa
import pyarrow.compute as pc

from ballast.data.label_names import clean_label, label_meant, look_alike, same_label
from ballast.exceptions import UserError, short, suggestion
from ballast.io.printable import counted, printable
from stages.store.values import LONGEST_LABEL

# Zero-width joiners belong to the spelling of some scripts and to emoji.
JOINERS = dict.fromkeys(map(ord, "\u200c\u200d"))
# Spellings in one line of notes.
MOST_SHOWN = 10
MAP = "ingest.label_map"


def training_labels(
    labels: pa.ChunkedArray, label_map: Mapping[str, str] | None, where: Callable[[int], str]
) -> tuple[pa.ChunkedArray, list[str]]:
    """Labels (n,) with one name for each class, null where missing, and lines that say what was joined and what looks alike.

    where : the place of a row, from 0, in words.

    Raises UserError, with the row, for a value that the map lacks, and for a label that is too long or has invisible
    characters.
    """
    counts = {entry["values"]: entry["counts"] for entry in pc.value_counts(labels).to_pylist() if entry["values"] is not None}
    cleaned = {written: clean_label(written) for written in counts}
    named = dict(cleaned) if label_map is None else mapped(cleaned, label_map, labels, where)
    for written, name in named.items():
        check_name(name, written, labels, where)
    notes = [*joined_in_words(cleaned, counts), *alike_in_words(named, counts)]
    labels = renamed(labels, named)
    if labels.null_count:
        first = where(pc.index(pc.is_null(labels), True).as_py())
        notes.append(f"{counted(labels.null_count, 'row')} without a label, the first is {first}")
    return labels, notes


def renamed(labels: pa.ChunkedArray, names: Mapping[str, str]) -> pa.ChunkedArray:
    """Labels (n,) with other names; a label with the name "" becomes null."""
    if all(name and written == name for written, name in names.items()):
        return labels
    new = pa.array([name or None for name in names.values()], pa.large_string())
    at = pc.index_in(labels, pa.array(list(names), labels.type))
    return pa.chunked_array([new.take(at.combine_chunks())])


def meant(labels: pa.ChunkedArray, known: Collection[str], label_map: Mapping[str, str] | None) -> pa.ChunkedArray:
    """The labels (n,) of feedback as the known labels that they mean; others are unchanged."""
    return renamed(
        labels, {label: label_meant(label, known, label_map) or label for label in pc.unique(labels.drop_null()).to_pylist()}
    )


def mapped(
    cleaned: Mapping[str, str], label_map: Mapping[str, str], labels: pa.ChunkedArray, where: Callable[[int], str]
) -> dict[str, str]:
    """The target of the map for each label as written in the file; raises UserError, with the row, for one that it lacks."""
    targets: dict[str, str] = {}
    for value, target in label_map.items():
        if not (name := clean_label(target)):
            raise UserError(f"{MAP}: the label of {value!r} is blank; expected a name")
        if targets.setdefault(clean_label(value), name) != name:
            raise UserError(f"{MAP}: the value {value!r} occurs twice, with different labels; remove one of them")
    keys = {label: same_label(label, targets) for label in set(cleaned.values()) if label}
    for written, label in cleaned.items():
        if label and keys[label] is None:
            raise UserError(
                f"{where(row_of(written, labels))} has the label {label!r}, which {MAP} lacks: {suggestion(label, targets)}"
            )
    return {written: targets[keys[label] or ""] if label else "" for written, label in cleaned.items()}


def row_of(written: str, labels: pa.ChunkedArray) -> int:
    """The first row, from 0, of a label as written in the file."""
    return int(pc.index(labels, written).as_py())


def check_name(name: str, written: str, labels: pa.ChunkedArray, where: Callable[[int], str]) -> None:
    """Raise UserError, with the row, for a label that is too long or has invisible characters."""
    words = ""
    if len(name) > LONGEST_LABEL:
        words = f"of {len(name):,} characters, more than {LONGEST_LABEL}"
    elif printable(visible := name.translate(JOINERS)) != visible:
        words = "with a control or invisible character"
    if words:
        raise UserError(
            f"{where(row_of(written, labels))} has a label {words}: {short(name)!r}; expected a name; check"
            f" ingest.label_column, or rename the value with {MAP}"
        )


def joined_in_words(cleaned: Mapping[str, str], counts: Mapping[str, int]) -> list[str]:
    r"""Lines that name the labels whose spelling is changed: those that are joined with another label, and the others.

    >>> joined_in_words({"spam": "spam", "spam ": "spam", " ham": "ham"}, {"spam": 60, "spam ": 40, " ham": 3})
    ["labels joined: 'spam ' (40) -> 'spam'", "labels stripped: ' ham' (3) -> 'ham'"]
    """
    names = list(cleaned.values())
    changed = {written: name for written, name in cleaned.items() if name not in ("", written)}
    joined = {written: name for written, name in changed.items() if names.count(name) > 1}
    alone = {written: name for written, name in changed.items() if written not in joined}
    parts = {"labels joined": joined, "labels stripped": alone}
    return [
        f"{title}: " + some(f"{visible(written)} ({counts[written]:,}) -> {name!r}" for written, name in part.items())
        for title, part in parts.items()
        if part
    ]


def alike_in_words(named: Mapping[str, str], counts: Mapping[str, int]) -> list[str]:
    """A line that names the labels that look alike, or are the same number, but are different classes.

    >>> alike_in_words({"Spam": "Spam", "spam": "spam", "ham": "ham"}, {"Spam": 2, "spam": 60, "ham": 3})
    ["warning: labels that look alike are different classes: 'Spam' (2) and 'spam' (60); to join them, use ingest.label_map"]
    """
    totals: dict[str, int] = {}
    for written, name in named.items():
        totals[name] = totals.get(name, 0) + counts[written]
    alike = look_alike(filter(None, totals))
    alike += [group for group in same_number(totals) if group not in alike]
    groups = [" and ".join(f"{name!r} ({totals[name]:,})" for name in group) for group in alike]
    return [f"warning: labels that look alike are different classes: {some(groups)}; to join them, use {MAP}"] if groups else []


def same_number(labels: Iterable[str]) -> list[list[str]]:
    """The labels that are the same finite number, each group in order.

    >>> same_number(["1.0", "ham", "1", "0", "nan", "nan "])
    [['1', '1.0']]
    """
    groups: dict[float, list[str]] = {}
    for label in sorted(labels):
        try:
            groups.setdefault(float(label), []).append(label)
        except ValueError:
            continue
    return [group for number, group in groups.items() if math.isfinite(number) and len(group) > 1]


def visible(label: str) -> str:
    """A label in quotes; letters in a decomposed form, which look like those in the composed form, are escaped."""
    return repr(label) if unicodedata.is_normalized("NFC", label) else ascii(label)


def some(parts: Iterable[str]) -> str:
    """The parts as a list in words; of many, the first and the number of the others."""
    every = list(parts)
    return ", ".join(every[:MOST_SHOWN]) + (f" and {len(every) - MOST_SHOWN:,} more" if len(every) > MOST_SHOWN else "")
