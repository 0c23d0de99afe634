"""What the benchmark across data sets says, in three sentences. Each is stated from the numbers, whatever they are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stages.pages.words import join_words, listed, signed
from stages.store.across_data_sets import Across

# The metric of the sentences: the class that matters is the rare one.
METRIC, IN_WORDS = "rare_f1", "the F1 of the rarest class"
LEVEL = 0.05
TUNED = (
    "The learning rate is chosen for each data set with the baseline, without test messages, and is the same for every entry;"
    " nothing else is tuned."
)


def n_data_sets(count: int) -> str:
    """A number of data sets in words.

    >>> n_data_sets(1), n_data_sets(6)
    ('1 data set', '6 data sets')
    """
    return f"{count} data set{'' if count == 1 else 's'}"


def mean_in_words(mean: Mapping[str, float | None]) -> str:
    """A mean difference over data sets with its interval; a single data set has none.

    >>> mean_in_words({"value": 0.02, "low": -0.01, "high": 0.05}), mean_in_words({"value": 0.02, "low": None, "high": None})
    ('+0.020 (-0.010 to +0.050)', '+0.020')
    """
    if mean["low"] is None or mean["high"] is None:
        return signed(mean["value"] or 0.0)
    return f"{signed(mean['value'] or 0.0)} ({signed(mean['low'])} to {signed(mean['high'])})"


def verdicts_in_words(verdicts: Mapping[str, int]) -> str:
    """Counts of verdicts in words, without those that do not occur.

    >>> verdicts_in_words({"better": 1, "equivalent": 0, "not shown": 3, "worse": 2})
    'better on 1, worse on 2 and not shown to differ on 3'
    """
    words = {"better": "better", "equivalent": "equivalent", "worse": "worse", "not shown": "not shown to differ"}
    return join_words([f"{words[key]} on {verdicts[key]}" for key in words if verdicts[key]])


def p_in_words(p: float) -> str:
    """A p-value.

    >>> p_in_words(0.0421), p_in_words(1e-7)
    ('p = 0.042', 'p < 0.001')
    """
    return f"p = {p:.2g}" if p >= 0.001 else "p < 0.001"


def against_imbalance(across: Across) -> list[str]:
    """The entries that are techniques against imbalance; tfidf and majority are other models."""
    return [name for name, entry in across.techniques.items() if entry["against_imbalance"]]


def threshold_sentence(across: Across) -> str:
    """What a threshold alone gains for the baseline, and whether a technique at the most probable class gains more."""
    gain, n = across.threshold[METRIC], len(across.data_sets)
    first = (
        f"A threshold alone changes {IN_WORDS} by {mean_in_words(gain['mean'])} for {across.reference}, on average over"
        f" {n_data_sets(n)}; the threshold is {verdicts_in_words(gain['verdicts'])}."
    )
    over = {name: across.techniques[name]["over_threshold"][METRIC]["verdicts"] for name in against_imbalance(across)}
    better = {name: counts["better"] for name, counts in over.items() if counts["better"]}
    if not over:
        return first
    if not better:
        return f"{first} No technique without a threshold is shown to be better than the threshold on any of them."
    most = max(better.values())
    best = [name for name, count in better.items() if count == most]
    return (
        f"{first} Without a threshold, {listed(best)} {'is' if len(best) == 1 else 'are'} shown to be better than the threshold"
        f" on {most} of {n}, and no technique on more."
    )


def technique_sentence(across: Across) -> str:
    """Which techniques help when every entry has its threshold."""
    names, n = against_imbalance(across), len(across.data_sets)
    if not names:
        return f"No technique against imbalance was run on the {n_data_sets(n)}."
    counts = {name: across.techniques[name]["operating_point"][METRIC]["verdicts"] for name in names}
    helpful = [name for name in names if counts[name]["better"] and not counts[name]["worse"]]
    if helpful:
        most = max(counts[name]["better"] for name in helpful)
        best = [name for name in helpful if counts[name]["better"] == most]
        mean = across.techniques[best[0]]["operating_point"][METRIC]["mean"]
        often = f" ({mean_in_words(mean)} on average)" if len(best) == 1 else ""
        first = (
            f"With a threshold for each, {listed(best)} {'is' if len(best) == 1 else 'are'} better than {across.reference} in"
            f" {IN_WORDS} on {most} of {n_data_sets(n)} and worse on none{often}."
        )
    else:
        harmful = sum(bool(counts[name]["worse"]) for name in names)
        where = (
            "on one data set without being worse on another"
            if any(counts[name]["better"] for name in names)
            else "on any data set"
        )
        first = (
            f"With a threshold for each, no technique is shown to be better than {across.reference} in {IN_WORDS} {where};"
            f" {harmful} of {len(names)} {'is' if harmful == 1 else 'are'} worse on at least one of {n_data_sets(n)}."
        )
    ranks = across.ranks["operating_point"].get(METRIC)
    if ranks is None:
        return first
    leader, p = ranks["order"][0], ranks["friedman"]["p_f"]
    shown = "differ" if p < LEVEL else "are not shown to differ"
    return (
        f"{first} The mean ranks of the {len(ranks['order'])} entries {shown} (Friedman, {p_in_words(p)}); the best is that of"
        f" {leader}, {ranks['mean_ranks'][leader]:.1f}."
    )


def rarity_sentence(across: Across) -> str:
    """Whether techniques help more where the rare class has fewer messages."""
    by_set = across.rarity["data_sets"]
    if not by_set:
        return "There is no technique whose gain could depend on the number of rare messages."
    most = max(by_set, key=lambda name: by_set[name]["mean_gain"])
    gain = by_set[most]
    verdicts = gain["verdicts"]
    shown = "is shown" if verdicts["better"] == 1 else "are shown"
    first = (
        f"With thresholds, the mean difference of the techniques in F1 is largest on {most}, which has {gain['rare']:,}"
        f" training messages of the rarest class: {signed(gain['mean_gain'])}; {verdicts['better']} of"
        f" {sum(verdicts.values())} {shown} to be better there."
    )
    related = across.rarity["correlation"]["rare"]
    if related is None:
        return f"{first} {n_data_sets(len(by_set)).capitalize()} cannot show how this depends on the number of rare messages."
    direction = "less" if related["rho"] < 0 else "more"
    answer = (
        f"techniques gain {direction} where there are more rare messages" if related["p"] < LEVEL else "no relation is shown"
    )
    return (
        f"{first} Between the number of rare messages and the gain, {answer} (Spearman's rho {related['rho']:+.2f},"
        f" {p_in_words(related['p'])}, {n_data_sets(len(by_set))})."
    )


def sentences(across: Across) -> list[str]:
    """The three sentences."""
    return [threshold_sentence(across), technique_sentence(across), rarity_sentence(across)]


def about(across: Across) -> Mapping[str, Any]:
    """How much was measured: data sets, entries, seeds, trainings; and what was tuned, in words."""
    seeds = max(len(each["seeds"]) for each in across.data_sets.values())
    trainings = sum(len(each["seeds"]) * len(each["entries"]) for each in across.data_sets.values())
    return {
        "data_sets": len(across.data_sets),
        "entries": len(across.techniques) + 1,
        "seeds": seeds,
        "trainings": trainings,
        "tuned": TUNED,
    }
