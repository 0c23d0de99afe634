"""Numbers, names and rules in words, as the pages and the model card show them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ballast.evaluation.costs import cost_matrix, threshold
from ballast.evaluation.review import REVIEW_UNIT
from ballast.evaluation.rules import BUDGET_UNIT

METRIC_NAMES = {
    "f1": "F1",
    "macro_f1": "macro F1",
    "weighted_f1": "weighted F1",
    "mcc": "MCC",
    "ece": "ECE",
    "pr_auc": "PR AUC",
    "roc_auc": "ROC AUC",
    "brier": "Brier score",
}


# Verdicts of a comparison, in the order in which they are shown.
VERDICTS = ("better", "equivalent", "not shown", "worse")
# Longer enumerations end in a count.
LISTED = 4


def magnitude(count: int) -> str:
    """A count with three significant digits and a unit.

    >>> [magnitude(count) for count in (22_700_000, 8_900, 412)]
    ['22.7 M', '8.9 k', '412']
    """
    for size, unit in ((1_000_000_000, "B"), (1_000_000, "M"), (1_000, "k")):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return str(count)


def percent(share: float) -> str:
    """A share in percent, with a second decimal near 0% and 100%.

    >>> [percent(share) for share in (0.126, 0.0042, 1.0)]
    ['12.6%', '0.42%', '100%']
    """
    distance = min(share, 1 - share)
    decimals = 0 if distance <= 0 else 1 if distance >= 0.01 else 2
    return f"{100 * share:.{decimals}f}%"


def percent_or_dash(share: float | None) -> str:
    """A share in percent, or a dash for a missing value."""
    return "–" if share is None else percent(share)


def probability(value: float) -> str:
    """A probability with three significant digits, or its distance from 1 if it is close to 1.

    >>> [probability(value) for value in (0.5, 0.01234, 0.9999999)]
    ['0.5', '0.0123', '1 − 1e-07']
    """
    return f"1 − {1 - value:.2g}" if 0.9995 <= value < 1 else f"{value:.3g}"


def number(value: float | None) -> str:
    """A metric with three decimals, or a dash for a missing value."""
    return "–" if value is None else f"{value:.3f}"


def signed(value: float) -> str:
    """A difference with its sign and three decimals; no sign if it rounds to zero.

    >>> [signed(value) for value in (0.0123, -0.0123, -0.0001)]
    ['+0.012', '-0.012', '0.000']
    """
    rounded = round(value, 3)
    return f"{rounded:+.3f}" if rounded else "0.000"


def with_interval(estimate: Mapping[str, float] | None) -> str:
    """A value with its confidence interval, or nothing for a missing estimate."""
    return "" if estimate is None else "{value:.3f} ({low:.3f} to {high:.3f})".format(**estimate)


def join_words(items: Sequence[str]) -> str:
    """Items as an enumeration in a sentence.

    >>> join_words(["a", "b", "c"])
    'a, b and c'
    """
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"


def listed(names: Sequence[str], most: int = LISTED) -> str:
    """Names as an enumeration; beyond `most` names, the others are counted.

    >>> listed(["a", "b", "c", "d"], most=2)
    'a, b and 2 others'
    """
    if len(names) <= most + 1:
        return join_words(names)
    return f"{', '.join(names[:most])} and {len(names) - most} others"


def shortened(text: str, n_characters: int) -> str:
    """A text, cut after some characters if it is longer."""
    return text if len(text) <= n_characters else f"{text[:n_characters]}…"


def capitalize_first(text: str) -> str:
    """A text with a capital first letter.

    >>> capitalize_first("macro F1")
    'Macro F1'
    """
    return text[:1].upper() + text[1:]


# Labels that are no name in a sentence: numbers, truth values, and words for nothing.
NO_NAME = re.compile(r"[\W\d_]+|[-+\d.]+e[-+]?\d+|true|false|yes|no|on|off|y|n|nan|na|none|null", re.IGNORECASE)


def class_name(label: str) -> str:
    """A label in a sentence; one that reads as a number or a truth value follows the word `class`.

    >>> [class_name(label) for label in ("spam", "1", "True", "no", "2b")]
    ['spam', 'class 1', 'class True', 'class no', '2b']
    """
    return f"class {label}" if NO_NAME.fullmatch(label) else label


def natural_order(labels: Sequence[str]) -> list[int]:
    """The indices of labels in the order in which people look for them: numbers by value, also inside names.

    >>> labels = ["-1", "1", "10", "2", "topic 10", "topic 9"]
    >>> [labels[index] for index in natural_order(labels)]
    ['-1', '1', '2', '10', 'topic 9', 'topic 10']
    """

    def key(index: int) -> tuple[Any, ...]:
        label = labels[index]
        try:
            number = float(label)
        except ValueError:
            number = math.nan
        if math.isfinite(number):
            return (0, number, label)
        parts = re.split(r"([0-9]+)", label.casefold())
        # Text and numbers alternate, beginning with text.
        return (1, [(int(part), "") if at % 2 else (0, part) for at, part in enumerate(parts)], label)

    return sorted(range(len(labels)), key=key)


def metric_name(metric: str) -> str:
    """The usual name of a metric, after its class if it has one.

    >>> [metric_name(metric) for metric in ("spam.f1", "1.f1", "macro_f1", "log_loss")]
    ['spam F1', 'class 1 F1', 'macro F1', 'log loss']
    """
    label, _, name = metric.rpartition(".")
    name = METRIC_NAMES.get(name, name.replace("_", " "))
    return f"{class_name(label)} {name}" if label else name


def operating_point_rule(point: Mapping[str, Any]) -> str:
    """The rule that chose an operating point, `point` as `stages.evaluate` writes it."""
    label = class_name(point["label"] or "")
    limit = "" if point["limit"] is None else f"{point['limit']:g}"
    rule: str = {
        "f1": f"the highest {label} F1",
        "f_beta": f"the highest {label} F-beta with beta {point.get('beta') or 1:g}",
        "macro_f1": "the highest macro F1",
        "cost": "the lowest expected cost, given the costs in params.yaml",
        "precision": f"the highest {label} recall with a {label} precision of at least {limit}",
        "recall": f"the highest {label} precision with a {label} recall of at least {limit}",
        "budget": f"the highest {label} recall with at most {limit} false alarms per {BUDGET_UNIT:,} other messages",
    }[point["rule"]]
    if point["rule"] != "cost":
        rule = f"{rule} on the held-out messages"
    if point.get("guarantee") is not None:
        return f"{rule}; {guarantee_words(point)}"
    return rule if point["met"] else f"{rule}; no threshold meets this limit, so the point of highest precision is used"


def guarantee_words(point: Mapping[str, Any]) -> str:
    """Whether the limit of an operating point is guaranteed in production, and how many messages a guarantee would need."""
    guarantee = point["guarantee"]
    confidence = percent(guarantee["confidence"])
    if guarantee["holds"]:
        return f"the limit holds in production with {confidence} confidence"
    kind = f"{class_name(point['label'])} messages" if guarantee["of_label"] else "other messages"
    refusal = f"the limit cannot be guaranteed with {confidence} confidence from {guarantee['units']:,} distinct {kind}"
    if guarantee["needed"] is None:
        return f"{refusal}, and at the rates observed no number of messages is enough"
    return f"{refusal}; about {guarantee['needed']:,} are needed at the rates observed"


def limit_words(point: Mapping[str, Any]) -> str:
    """How likely it is that the limit of an operating point holds in production; empty without a limit."""
    if point.get("probability") is None:
        return ""
    return f"the limit holds in production with probability {percent(point['probability'])}"


def review_words(point: Mapping[str, Any]) -> str:
    """Which messages people decide, as a sentence; empty if they decide none."""
    review = point.get("review")
    if review is None:
        return ""
    which = (
        f"People decide the least clear {review['limit']:g} of {REVIEW_UNIT:,} messages"
        if review["kind"] == "budget"
        else f"People decide the messages with an expected cost above {review['limit']:g}, the cost of a review"
    )
    share, ends = review["share"], review["thresholds"]
    between = "" if ends is None else f", with a probability between {probability(ends['low'])} and {probability(ends['high'])}"
    measured = "" if share is None else f" ({percent(share['value'])} of the held-out messages)"
    return f"{which}{between}{measured}."


def decision_rule(point: Mapping[str, Any], labels: Sequence[str]) -> str:
    """How the predicted class of a message follows from its probabilities."""
    costs = cost_matrix(point["costs"], labels)
    label = point["label"] or labels[-1]
    name = class_name(label)
    if len(labels) == 2:
        minimum = threshold(costs, labels.index(label))
        return f"a message is predicted as {name} if its probability of {name} exceeds {probability(minimum)}"
    if point["label"] is not None:
        weight = costs[labels.index(label)].max()
        return f"the probability of {name} is multiplied by {weight:.3g}, and the class with the highest value is predicted"
    return "the class with the lowest expected cost is predicted"
