"""Second question of the report: whether any technique is better than the plain baseline, with numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ballast.evaluation.metrics import higher_is_better
from ballast.evaluation.power import DifferenceError, smallest_in_words
from stages.pages.report.results import Results
from stages.pages.words import VERDICTS, join_words, listed, metric_name, signed

Entry = Mapping[str, Any]


def compared_metric(results: Results) -> str:
    """The metric of the verdicts: that of the selection if it is one of decisions, otherwise F1 of the rarest class."""
    metric = results.params.select.metric
    compared = [entry["comparison"] for entry in results.board["techniques"].values() if entry["comparison"]]
    known = all(metric in comparison["operating_point"]["metrics"] for comparison in compared)
    return metric if known else f"{results.rarest}.f1"


def differences(results: Results, metric: str) -> dict[str, Entry]:
    """Each technique's difference from the baseline on test, at the operating points."""
    techniques = results.board["techniques"]
    return {
        name: techniques[name]["comparison"]["operating_point"]["metrics"][metric]
        for name in results.names
        if techniques[name]["comparison"]
    }


def headline(counts: Mapping[str, list[str]], total: int) -> str:
    """The answer in a few words."""
    better = counts["better"]
    if better:
        return f"Yes: {listed(better)} {'is' if len(better) == 1 else 'are'} better."
    if len(counts["equivalent"]) + len(counts["worse"]) == total:
        return "No."
    return "None is shown to be better."


def counted_verdicts(counts: Mapping[str, Sequence[str]], total: int) -> str:
    """How many techniques have each verdict, in one sentence.

    Examples
    --------
    >>> counted_verdicts({"better": [], "worse": ["majority"], "equivalent": ["focal", "ldam"], "not shown": ["smote"]}, 4)
    'Of 4 other techniques, none is better, 1 is worse (majority), 2 are equivalent, and for 1 no difference is shown.'
    """
    parts = []
    for word in ("better", "worse", "equivalent"):
        names = counts[word]
        start = "none is" if not names else "1 is" if len(names) == 1 else f"{len(names)} are"
        parts.append(f"{start} {word}" + (f" ({join_words(names)})" if 0 < len(names) <= 3 and word == "worse" else ""))
    if unknown := len(counts["not shown"]):
        parts.append(f"for {unknown} no difference is shown")
    *first, last = parts
    return f"Of {total} other {'technique' if total == 1 else 'techniques'}, {', '.join(first)}, and {last}."


def smallest(results: Results, entries: Mapping[str, Entry], metric: str) -> str:
    """The smallest difference that the test set could have shown, in words, for a technique of median precision."""
    ranked = sorted((entry for entry in entries.values() if "standard_error" in entry), key=lambda entry: entry["smallest"])
    if not ranked:
        return ""
    error = DifferenceError(**ranked[len(ranked) // 2]["standard_error"])
    return smallest_in_words(
        metric_name(metric),
        results.rarest,
        error,
        rare=results.ingest["splits"]["test"][results.rarest],
        seeds=results.n_seeds,
        level=(1 - results.params.evaluate.confidence) / len(entries),
    )


def against_baseline(results: Results) -> dict[str, Any]:
    """The second question with its answer: sentences, and the number of techniques by verdict."""
    metric, reference = compared_metric(results), results.board["reference"]
    entries = differences(results, metric)
    if not entries:
        return {"reference": reference, "headline": "There is no other technique.", "sentences": [], "smallest": "", "bars": []}
    counts = {word: [name for name, entry in entries.items() if entry["verdict"] == word] for word in VERDICTS}
    sign = 1 if higher_is_better(metric) else -1
    best = max(entries, key=lambda name: sign * entries[name]["difference"])
    gain = entries[best]
    chance = ", which may be chance" if gain["low"] <= 0 <= gain["high"] else ""
    largest = (
        f"The largest gain in {metric_name(metric)} is that of {best}: {signed(gain['difference'])}"
        f" ({signed(gain['low'])} to {signed(gain['high'])}){chance}."
    )
    return {
        "reference": reference,
        "headline": headline(counts, len(entries)),
        "sentences": [counted_verdicts(counts, len(entries)), largest],
        "smallest": smallest(results, entries, metric),
        "bars": [
            {"word": word, "count": len(names), "names": listed(names, most=len(names)) if names else ""}
            for word, names in counts.items()
        ],
    }
