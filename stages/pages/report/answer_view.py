"""First question of the report: what to deploy, how good it is in production, why it was selected, and what is tied with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import hypot
from typing import Any

from ballast.evaluation.metrics import higher_is_better
from ballast.evaluation.operating_point import cost_matrix, threshold
from stages.pages.drawing import Axis, shared_axis
from stages.pages.report.results import Results
from stages.pages.words import join_words, listed, magnitude, metric_name, probability

# Counts and costs are given for this many messages.
PER = 10_000
# A technique that is selected in this share of the bootstrap redraws is a stable choice.
STABLE = 0.9
Estimate = Mapping[str, float]


def scaled(estimate: Estimate, factor: float, offset: float = 0.0) -> dict[str, float]:
    """An estimate times a factor, plus an offset; a negative factor exchanges the ends of the interval.

    Examples
    --------
    >>> scaled({"value": 0.75, "low": 0.5, "high": 1.0}, -100, 100)
    {'value': 25.0, 'low': 0.0, 'high': 50.0}
    """
    low, high = sorted((factor * estimate["low"] + offset, factor * estimate["high"] + offset))
    return {"value": factor * estimate["value"] + offset, "low": low, "high": high}


def sum_of(estimates: Sequence[Estimate]) -> dict[str, float]:
    """The sum of independent estimates, with the interval that their intervals imply (Zou and Donner 2008, MOVER).

    Examples
    --------
    >>> sum_of([{"value": 10.0, "low": 7.0, "high": 14.0}, {"value": 20.0, "low": 16.0, "high": 23.0}])
    {'value': 30.0, 'low': 25.0, 'high': 35.0}
    """
    value = sum(estimate["value"] for estimate in estimates)
    below, above = (hypot(*(estimate[end] - estimate["value"] for estimate in estimates)) for end in ("low", "high"))
    return {"value": value, "low": value - below, "high": value + above}


def mistakes(estimates: Mapping[str, Estimate], label: str, share: float) -> dict[str, dict[str, float]]:
    """False alarms, misses and mistakes of a label per PER messages of production, from its recall and false-positive rate.

    share : of the label in production.
    """
    false_alarms = scaled(estimates[f"{label}.false_positive_rate"], PER * (1 - share))
    misses = scaled(estimates[f"{label}.recall"], -PER * share, PER * share)
    # Members and other messages are different samples, so the two counts are independent.
    return {"false_alarms": false_alarms, "misses": misses, "total": sum_of([false_alarms, misses])}


def expected_cost(counts: Mapping[str, Estimate], costs: Mapping[str, Mapping[str, float]], label: str) -> dict[str, float]:
    """Expected cost per PER messages with two classes, beyond that of correct decisions, from `mistakes` of a label."""
    [other] = set(costs) - {label}
    false_alarm, miss = costs[other][label] - costs[other][other], costs[label][other] - costs[label][label]
    return sum_of([scaled(counts["false_alarms"], false_alarm), scaled(counts["misses"], miss)])


def quality_row(title: str, own: Estimate, test: Estimate, digits: int, axis: Axis, *, note: str = "") -> dict[str, Any]:
    """One number: its out-of-fold estimate with interval, and its value on test, both on one axis."""
    decimals = f"{{:,.{digits}f}}"
    return {
        "title": title,
        "note": note,
        "value": decimals.format(own["value"]),
        "ends": f"{decimals.format(own['low'])} to {decimals.format(own['high'])}",
        "test": decimals.format(test["value"]),
        "test_ends": f"{decimals.format(test['low'])} to {decimals.format(test['high'])}",
        **axis.interval(own),
        "test_at": axis.at(test["value"]),
    }


def quality(point: Mapping[str, Any], label: str, share: float) -> list[dict[str, Any]]:
    """Precision, recall and mistakes or cost of the selected technique in production, out of fold and on test.

    point : `selected/operating_point.json`.
    """
    families = [point["out_of_fold"], point["test"]]
    rows = []
    rates = [[family[f"{label}.{metric}"] for family in families] for metric in ("precision", "recall")]
    axis = shared_axis([estimate for pair in rates for estimate in pair], loss=False, limit=1)
    for metric, (own, test) in zip(("Precision", "Recall"), rates, strict=True):
        rows.append(quality_row(metric, own, test, digits=3, axis=axis))
    counts = [mistakes(family, label, share) for family in families]
    parts = counts[0]
    note = f"{counted_mistakes(parts['false_alarms'], 'false alarms')}, {counted_mistakes(parts['misses'], 'missed')}"
    totals, title = [count["total"] for count in counts], f"Mistakes per {PER:,}"
    if point["rule"] == "cost" and len(point["labels"]) == 2:
        totals = [expected_cost(count, point["costs"], label) for count in counts]
        title = f"Cost per {PER:,}"
    digits = 0 if totals[0]["value"] >= 10 else 1
    rows.append(quality_row(title, totals[0], totals[1], digits=digits, axis=shared_axis(totals, loss=True), note=note))
    return rows


def counted_mistakes(estimate: Estimate, kind: str) -> str:
    """A count of mistakes of one kind with its interval.

    Examples
    --------
    >>> counted_mistakes({"value": 31.6, "low": 12.0, "high": 55.2}, "false alarms")
    '32 false alarms (12 to 55)'
    """
    return f"{estimate['value']:,.0f} {kind} ({max(0, estimate['low']):,.0f} to {estimate['high']:,.0f})"


def threshold_sentence(point: Mapping[str, Any], label: str) -> str:
    """The rule of decision with its threshold, as a sentence without a subject."""
    labels = point["labels"]
    if len(labels) > 2:
        return "at its operating point"
    ends = point.get("threshold")
    if ends is None or point["label"] != label:
        return f"at threshold {probability(threshold(cost_matrix(point['costs'], labels), labels.index(label)))}"
    interval = f" ({probability(ends['low'])} to {probability(ends['high'])})" if ends["low"] < ends["high"] else ""
    return f"at threshold {probability(ends['value'])}{interval}"


def threshold_explained(label: str, confidence: str) -> str:
    """What the threshold is, for two classes.

    Examples
    --------
    >>> threshold_explained("spam", "95%")
    'A message is predicted as spam if its probability of spam exceeds the threshold. Its 95% interval is in parentheses.'
    """
    return (
        f"A message is predicted as {label} if its probability of {label} exceeds the threshold. Its"
        f" {confidence} interval is in parentheses."
    )


def conditions(results: Results) -> str:
    """The constraints of the selection, as a clause; empty without constraints."""
    rule = results.params.select
    sign = {key: "≥" if higher_is_better(key) else "≤" for key in rule.constraints}
    limits = [f"{metric_name(key)} {sign[key]} {limit:g}" for key, limit in rule.constraints.items()]
    limits += ["safe probabilities"] if rule.safe_only else []
    return f" among the techniques with {join_words(limits)}" if limits else ""


def why(results: Results) -> str:
    """Why the selected technique was selected, in one sentence."""
    selection, selected = results.selection, results.selected["technique"]
    metric = metric_name(results.params.select.metric)
    estimates = {name: results.selecting(name) for name in selection["candidates"]}
    best, value = selection["best"], estimates[selected]["value"]
    within = [name for name, entry in selection["candidates"].items() if entry["within"]]
    among = conditions(results)
    if selected == best:
        cheaper = "" if len(within) == 1 else f", and of the {len(within)} within one standard error of it, none is cheaper"
        cheaper = cheaper if selection["rule"] == "one_standard_error" else ""
        return f"It has the best {metric}{among} ({value:.3f}){cheaper}."
    entry = selection["candidates"][selected]
    distance = (
        f"Its {metric} of {value:.3f} is within one standard error ({entry['standard_error']:.3f}) of the best"
        f"{among} ({best}, {estimates[best]['value']:.3f})"
    )
    return f"{distance}, and {cheapest(results, within)}."


def cheapest(results: Results, within: Sequence[str]) -> str:
    """Why one of the techniques within one standard error of the best is preferred."""
    techniques, selected = results.board["techniques"], results.selected["technique"]
    operations = {name: techniques[name]["multiply_adds"] for name in within}
    lowest = [name for name in within if operations[name] == operations[selected]]
    count = f"of {len(within)} such techniques" if len(within) > 2 else "of the two"
    if len(lowest) == 1:
        return f"{count} it is the cheapest to run ({magnitude(operations[selected])} multiply-adds per message)"
    if selected == results.board["reference"]:
        return f"{count} none is cheaper to run, and it is the plain baseline"
    return f"{count} none is cheaper to run, and it is the best of the cheapest"


def tied_sentences(results: Results) -> list[str]:
    """Which techniques are tied with the selected one, and how stable the selection is."""
    selected, names = results.selected["technique"], results.tied
    if names:
        sentences = [f"{listed(names)} {'lies' if len(names) == 1 else 'lie'} within one standard error of the best."]
    else:
        sentences = ["No other technique lies within one standard error of the best."]
    share = results.selection["stability"].get(selected, 0.0)
    stable = f"The rule selects {selected} in {share:.0%} of bootstrap samples"
    if share >= STABLE or not names:
        return [*sentences, f"{stable}."]
    operations = {name: results.board["techniques"][name]["multiply_adds"] for name in [selected, *names]}
    cheapest_name = min(operations, key=lambda name: operations[name])
    remark = "none of them is cheaper to run" if cheapest_name == selected else f"{cheapest_name} is the cheapest to run"
    return [*sentences, f"{stable}: several techniques are tied, and {remark}."]


def answer(results: Results) -> dict[str, Any]:
    """The first question with its answer."""
    point, label = results.point, results.decided_label
    share = results.board["production_prior"][label]
    missed = "" if point["met"] else f"No threshold meets {point['rule']} {point['limit']:g} out of fold."
    return {
        "technique": results.selected["technique"],
        "members": len(results.selected["seeds"]) if results.selected["deploy"] == "ensemble" else 1,
        "threshold": threshold_sentence(point, label),
        "explained": threshold_explained(label, results.confidence) if len(point["labels"]) == 2 else "",
        "label": label,
        "share": share,
        "rows": quality(point, label, share),
        "missed": missed,
        "why": why(results),
        "tied": tied_sentences(results),
        "folds": sum(point["fitted_on"].values()),
        "support": point["fitted_on"][label],
        "test_support": results.ingest["splits"]["test"][label],
    }
