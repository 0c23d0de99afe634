"""Evidently's page of one window: drift of decided classes, probabilities and texts' descriptors from the production prior.

Evidently draws; it is given classes and numbers only, never a text.
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
    """What is compared of n messages: decided classes (n,), probabilities (n, K), descriptors of the texts by name (n,)."""

    decided: np.ndarray
    probability: np.ndarray
    descriptors: Mapping[str, np.ndarray]

    def frame(self, names: np.ndarray) -> pd.DataFrame:
        """A column each, with the names (K,) of the classes."""
        probabilities = {f"probability of {name}": self.probability[:, at] for at, name in enumerate(names)}
        return pd.DataFrame({DECIDED: names[self.decided], **probabilities, **dict(self.descriptors)})


def items(reference: pd.DataFrame, window: pd.DataFrame, threshold: float) -> tuple[list[ValueDrift], list[str]]:
    """The columns to compare, and the names of those that have one value in all messages, which no test can compare."""
    drifts, constant = [], []
    for column in reference.columns:
        values = pd.concat([reference[column], window[column]])
        if values.nunique() == 1:
            constant.append(column)
            continue
        drifts.append(ValueDrift(column=column, method="chisquare" if column == DECIDED else "ks", threshold=threshold))
    return drifts, constant


def note(watched: Mapping[str, Any], reference: int, window: int, constant: list[str], drawn: bool) -> Note:
    """The paragraphs on top; reference and window : how many messages are compared."""
    title = safe(f"Window {watched['window']} against the production prior")
    # An arrow has a sign that may not stand here.
    decided = f"Decision: {watched['decision']}, because {'; '.join(watched['reasons'])}.".replace(" -> ", " → ")
    if not drawn:
        few = {0: "no messages", 1: "one message"}.get(watched["n"], "messages that are all the same")
        return Note(title=title, text=safe(f"The window has {few}: there is no distribution to compare.\n\n{decided}"))
    of = "" if window == watched["n"] else f" of {watched['n']:,}"
    paragraphs = [
        decided,
        f"Reference: {reference:,} labelled held-out messages, drawn without replacement so that their classes have the "
        f"shares that model {watched['model']} is corrected to. Current: {window:,}{of} messages of the window, without "
        "labels. Decided classes are compared by a chi-square test, probabilities and descriptors of the texts by "
        "Kolmogorov-Smirnov.",
        "Evidently draws; our own tests decide, which allow for a shift of the class prior and for near duplicates: such a "
        "shift alone may explain columns that drift here.",
        "The shares of decided classes below are what classify-and-count gives. They are biased, because the model's "
        "mistakes do not cancel; the time line (index.html) has the estimate.",
    ]
    paragraphs += [f"The same in all messages, so not drawn: {', '.join(constant)}."] if constant else []
    return Note(title=title, text=safe("\n\n".join(paragraphs)))


def window_page(watched: Mapping[str, Any], reference: Columns, window: Columns, threshold: float) -> str:
    """Evidently's page of a window.

    Parameters
    ----------
    watched : what the watch wrote of the window: its name, number of messages, labels, model, decision and reasons.
    reference : m > 0 labelled messages whose classes have the production shares (`with_shares`).
    window : the window's messages, or a sample of them; fewer than two give a page that says so.
    threshold : p-value below which Evidently calls it drift.
    """
    names = np.array(safe_names(watched["labels"]), dtype=object)
    expected, found = reference.frame(names), window.frame(names)
    drifts, constant = items(expected, found, threshold) if len(found) > 1 else ([], [])
    paragraphs = note(watched, len(expected), len(found), constant, bool(drifts))
    kinds = DataDefinition(categorical_columns=[DECIDED], numerical_columns=list(expected.columns[1:]))
    # Evidently refuses a table without rows, also where nothing is compared.
    shown = found if drifts else expected
    data = [Dataset.from_pandas(frame, kinds) for frame in (shown, expected)]
    # A class that is decided for in the window and never in the reference divides by zero: p is 0, as it should be.
    with np.errstate(divide="ignore"):
        run = Report([paragraphs, *drifts], include_tests=False).run(*data)
    return finished(run.get_html_str(as_iframe=False), safe(f"Ballast: window {watched['window']} (Evidently)"))
