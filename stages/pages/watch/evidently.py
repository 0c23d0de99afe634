"""Evidently's page of one window: drift of decisions, probabilities and text descriptors from the production prior.

Evidently only draws. It receives classes and numbers, never a text.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from evidently import DataDefinition, Dataset, Report
from evidently.metrics import ValueDrift

from stages.pages.evidently import Note, finished, safe, safe_names

DECIDED = "decided class"


@dataclass(frozen=True, kw_only=True)
class Columns:
    """The compared columns of n messages: decided classes (n,), probabilities (n, K) and text descriptors by name (n,)."""

    decided: np.ndarray
    probability: np.ndarray
    descriptors: Mapping[str, np.ndarray]

    def frame(self, names: np.ndarray) -> pd.DataFrame:
        """One data frame with all columns; `names` (K,) are the classes."""
        probabilities = {f"probability of {name}": self.probability[:, k] for k, name in enumerate(names)}
        return pd.DataFrame({DECIDED: names[self.decided], **probabilities, **dict(self.descriptors)})


def items(reference: pd.DataFrame, window: pd.DataFrame, threshold: float) -> tuple[list[ValueDrift], list[str]]:
    """The columns to compare, and the names of the constant columns, which no test can compare."""
    drifts, constant = [], []
    for column in reference.columns:
        values = pd.concat([reference[column], window[column]])
        if values.nunique() == 1:
            constant.append(column)
            continue
        drifts.append(ValueDrift(column=column, method="chisquare" if column == DECIDED else "ks", threshold=threshold))
    return drifts, constant


def note(watched: Mapping[str, Any], reference: int, window: int, constant: list[str], drawn: bool) -> Note:
    """The paragraphs at the top of the page; `reference` and `window` are numbers of compared messages."""
    title = safe(f"Window {watched['window']} against the production prior")
    # The characters of an ASCII arrow are not safe in the page.
    decision = f"Decision: {watched['decision']}, because {'; '.join(watched['reasons'])}.".replace(" -> ", " → ")
    if not drawn:
        few = {0: "no messages", 1: "only one message"}.get(watched["n"], "only identical messages")
        return Note(title=title, text=safe(f"The window has {few}, so there is no distribution to compare.\n\n{decision}"))
    of = "" if window == watched["n"] else f" of {watched['n']:,}"
    paragraphs = [
        decision,
        f"Reference: {reference:,} labelled held-out messages, drawn without replacement so that their classes have the "
        f"shares that model {watched['model']} is corrected to. Current: {window:,}{of} unlabelled messages of the window. A "
        "chi-square test compares the decided classes. Kolmogorov-Smirnov tests compare probabilities and text descriptors.",
        "Evidently does not decide. The decision uses Ballast's own tests, which account for a shift of the class prior and "
        "for near duplicates. A shift of the prior alone may explain the columns that drift here.",
        "The shares of decided classes below are classify-and-count estimates. They are biased, because the errors of the "
        "model do not cancel out. The time line (index.html) shows the corrected estimate.",
    ]
    paragraphs += [f"These columns are not drawn, as they are constant: {', '.join(constant)}."] if constant else []
    return Note(title=title, text=safe("\n\n".join(paragraphs)))


def window_page(watched: Mapping[str, Any], reference: Columns, window: Columns, threshold: float) -> str:
    """Evidently's page of a window.

    Parameters
    ----------
    watched : the window as the watch writes it, with name, number of messages, labels, model, decision and reasons.
    reference : m > 0 labelled messages with the production shares (`with_shares`).
    window : the window's messages or a sample of them. With fewer than two messages, the page shows no comparison.
    threshold : p-value below which Evidently reports drift.
    """
    names = np.array(safe_names(watched["labels"]), dtype=object)
    expected, current = reference.frame(names), window.frame(names)
    drifts, constant = items(expected, current, threshold) if len(current) > 1 else ([], [])
    paragraphs = note(watched, len(expected), len(current), constant, bool(drifts))
    kinds = DataDefinition(categorical_columns=[DECIDED], numerical_columns=list(expected.columns[1:]))
    # Evidently rejects an empty table, even if nothing is compared.
    shown = current if drifts else expected
    data = [Dataset.from_pandas(frame, kinds) for frame in (shown, expected)]
    # A class that occurs in the window but never in the reference causes a division by zero. The result p = 0 is correct.
    with np.errstate(divide="ignore"):
        run = Report([paragraphs, *drifts], include_tests=False).run(*data)
    return finished(run.get_html_str(as_iframe=False), safe(f"Ballast: window {watched['window']} (Evidently)"))
