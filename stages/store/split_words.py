"""How the test set came about, in words, from `data/ingest.json`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ballast.io.printable import counted

# Classes whose shares a warning shows, those that differ most.
SHOWN = 5


def split_in_words(ingested: Mapping[str, Any]) -> list[str]:
    """How the test set came about, what crosses the splits, and whether class shares differ: a sentence each.

    >>> split = {"rule": "grouped", "source": None, "group_column": None, "folds": None, "differs": False}
    >>> split["crossing"] = {"rows": 0, "groups": 0, "test_rows": 0, "dropped": False}
    >>> splits = {"train": {"ham": 7, "spam": 1}, "validation": {}, "test": {"ham": 1, "spam": 1}}
    >>> split_in_words({"splits": splits, "folds": [{}] * 8, "split": split})
    ['The test set is a stratified random 20% of the messages. Near duplicates stay together.']
    """
    split = ingested.get("split")
    if split is None:
        return []
    return [sentence for sentence in (origin(ingested, split), crossing_in_words(split), shares_in_words(split)) if sentence]


def origin(ingested: Mapping[str, Any], split: Mapping[str, Any]) -> str:
    """How the test set and the validation set came about."""
    counts = {name: sum(of_split.values()) for name, of_split in ingested["splits"].items()}
    share = f"{counts['test'] / sum(counts.values()):.0%}"
    fixed = counts["validation"] > 0
    if split["rule"] == "time":
        begins = split["begins"]
        return (
            f"The test set is the latest {share} of the messages, from {begins['test']} ({split['source']}); validation begins"
            f" at {begins['validation']}."
        )
    if split["rule"] == "column":
        validation = "Validation is official too." if fixed else "The training messages rotate through validation."
        return f"The test set is the official one ({split['source']}), {counted(counts['test'], 'message')}. {validation}"
    drawn = (
        "a stratified random"
        if split["folds"] is None
        else f"fold {split['folds']['index']} of {split['folds']['count']}, a stratified random"
    )
    together = {
        "random": "Each message is drawn alone.",
        "grouped": "Near duplicates stay together.",
        "group_column": f"Near duplicates and messages with the same {split['group_column']} stay together.",
    }[split["rule"]]
    units = ""
    if "units" in split:
        units = f" There are {counted(split['units'], 'unit')}; the largest has {counted(split['largest_unit'], 'message')}."
    return f"The test set is {drawn} {share} of the messages. {together}{units}"


def crossing_in_words(split: Mapping[str, Any]) -> str | None:
    """How many messages have a near duplicate, or another message of their unit, in a later split; None if none has."""
    crossing = split["crossing"]
    if not crossing["rows"]:
        return None
    kind = "a near duplicate" if split["group_column"] is None else f"a near duplicate or the same {split['group_column']}"
    dropped = (
        "They are dropped (ingest.drop_crossing)."
        if crossing["dropped"]
        else f"{counted(crossing['test_rows'], 'test message')} may be easier for it."
    )
    return (
        f"{counted(crossing['rows'], 'message')} of training or validation {'has' if crossing['rows'] == 1 else 'have'}"
        f" {kind} in a later split ({counted(crossing['groups'], 'group')}). {dropped}"
    )


def shares_in_words(split: Mapping[str, Any]) -> str | None:
    """A warning that the class shares of training and test differ, with both; None if they do not."""
    if not split["differs"]:
        return None
    train, test = split["prior"]["train"], split["prior"]["test"]
    order = sorted(train, key=lambda label: -abs(test[label] - train[label]))
    shown = ", ".join(f"{label} {100 * train[label]:.3g}% and {100 * test[label]:.3g}%" for label in order[:SHOWN])
    more = f" and {len(order) - SHOWN} other classes" if len(order) > SHOWN else ""
    p = split["shares_test"]["p"]
    tested = f"{split['shares_test']['name']}, p {'< 0.001' if p < 0.001 else f'{p:.3f}'}"
    return (
        f"Warning: the class shares of training and test differ ({tested}): {shown}{more}. production.prior: data takes the"
        " shares of training; state those of production if they are others."
    )
