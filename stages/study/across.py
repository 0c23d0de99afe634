"""What holds across the data sets of the benchmark, from their results: ranks, counts of verdicts, gains, rarity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any

import numpy as np

from ballast.evaluation.across import mean_over_data_sets, rank_correlation, verdict_counts
from ballast.evaluation.metrics import higher_is_better
from ballast.evaluation.ranks import (
    LEAST_DATA_SETS,
    LEAST_TECHNIQUES,
    against_control,
    critical_difference,
    friedman,
    level_groups,
    ranked,
)
from stages.store.across_data_sets import FAMILIES, METRICS, PROTOCOL, Across, DataSetResult, DataSets, Published

Results = Mapping[str, DataSetResult]
# Metrics of the probabilities, which an operating point does not change.
OF_PROBABILITIES = ("rare_pr_auc", "log_loss")
# Entries without an encoder: they are no technique against imbalance.
OTHER_MODELS = ("tfidf", "tfidf_class_weight", "majority")


def metrics_of(family: str) -> list[str]:
    """The metrics of a family."""
    return [metric for metric in METRICS if family == "corrected" or metric not in OF_PROBABILITIES]


def common_entries(results: Results) -> list[str]:
    """Entries that every data set has, in the order of the first one."""
    first, *others = results.values()
    return [name for name in first.entries if all(name in other.entries for other in others)]


def ranks_of(results: Results, family: str, metric: str, reference: str, confidence: float) -> dict[str, Any] | None:
    """Mean ranks of the entries that all data sets have, with the tests; None for too few data sets or entries."""
    names, n = common_entries(results), len(results)
    if n < LEAST_DATA_SETS or len(names) < LEAST_TECHNIQUES:
        return None
    values = np.array([[result.entries[name].values[family][metric]["value"] for name in names] for result in results.values()])
    ranks = ranked(values, higher_is_better=higher_is_better(metric))
    test, means = friedman(ranks), dict(zip(names, ranks.mean(axis=0).tolist(), strict=True))
    order = sorted(means, key=lambda name: means[name])
    width = critical_difference(len(names), n, confidence)
    return {
        "mean_ranks": means,
        "order": order,
        "friedman": {
            "chi_squared": test.statistic,
            "p": test.p,
            "f": test.f if isfinite(test.f) else None,
            "p_f": test.p_f,
        },
        "critical_difference": width,
        "level": [list(group) for group in level_groups([means[name] for name in order], width)],
        "against_reference": against_control(means, n, reference) if reference in means else {},
    }


def differences(results: Results, name: str, family: str, metric: str) -> dict[str, dict[str, Any]]:
    """The difference of an entry from the baseline on each data set that has it."""
    found = {}
    for data_set, result in results.items():
        entry = result.entries.get(name)
        if entry is not None and entry.differences is not None:
            found[data_set] = entry.differences[family][metric]
    return found


def summary(compared: Mapping[str, Mapping[str, Any]], confidence: float) -> dict[str, Any]:
    """Counts of verdicts, and the mean difference, of comparisons by data set."""
    return {
        "verdicts": verdict_counts(each["verdict"] for each in compared.values()),
        "mean": mean_over_data_sets([each["difference"] for each in compared.values()], confidence),
        "data_sets": len(compared),
    }


def techniques_of(results: Results, names: Sequence[str], confidence: float) -> dict[str, Any]:
    """For each entry but the baseline: counts and mean differences by family and metric, and against a threshold alone."""
    made = {}
    for name in names:
        by_family = {
            family: {metric: summary(differences(results, name, family, metric), confidence) for metric in metrics_of(family)}
            for family in FAMILIES
        }
        over = {
            metric: summary(
                {
                    data_set: result.entries[name].over_threshold[metric]  # type: ignore[index]
                    for data_set, result in results.items()
                    if name in result.entries and result.entries[name].over_threshold
                },
                confidence,
            )
            for metric in metrics_of("operating_point")
        }
        [technique] = {result.entries[name].technique for result in results.values() if name in result.entries}
        made[name] = {
            **by_family,
            "over_threshold": over,
            "technique": technique,
            "against_imbalance": technique not in OTHER_MODELS,
        }
    return made


def rarity_of(results: Results, techniques: Mapping[str, Any]) -> dict[str, Any]:
    """How the mean and the largest gain in F1 of the rarest class, at the operating point, depend on the rare class.

    The gain is over the techniques against imbalance. The largest one is chosen on test, so it is optimistic.
    """
    names = [name for name, entry in techniques.items() if entry["against_imbalance"]]
    by_set: dict[str, Any] = {}
    for data_set, result in results.items():
        gains = {
            name: result.entries[name].differences["operating_point"]["rare_f1"]  # type: ignore[index]
            for name in names
            if name in result.entries
        }
        if gains:
            by_set[data_set] = {
                "share": result.share,
                "rare": result.train.rare,
                "mean_gain": float(np.mean([gain["difference"] for gain in gains.values()])),
                "verdicts": verdict_counts(gain["verdict"] for gain in gains.values()),
            }
    means = [each["mean_gain"] for each in by_set.values()]
    related = {key: rank_correlation([each[key] for each in by_set.values()], means) for key in ("share", "rare")}
    return {"data_sets": by_set, "correlation": related}


def facts_of(result: DataSetResult, about: Mapping[str, Any]) -> dict[str, Any]:
    """What the page and the chapter show of a data set."""
    content = result.model_dump()
    return {key: content[key] for key in SHOWN} | {key: about[key] for key in ("tests", "address", "licence")}


# Parts of the result of a data set that the page and the chapter show.
ABOUT = ("classes", "rarest", "share", "prior", "train", "test", "split", "crossing", "seeds", "tail", "data", "encoder")
SHOWN = (*ABOUT, "entries", "threshold", "chosen")


def across(settings: DataSets, results: Results, published: Sequence[Published], missing: Mapping[str, str]) -> Across:
    """The result across data sets."""
    first = next(iter(results.values()))
    reference, confidence = first.reference, first.confidence
    names = list(dict.fromkeys(name for result in results.values() for name in result.entries if name != reference))
    techniques = techniques_of(results, names, confidence)
    ranks = {
        family: {
            metric: made
            for metric in metrics_of(family)
            if (made := ranks_of(results, family, metric, reference, confidence)) is not None
        }
        for family in FAMILIES
    }
    threshold = {
        metric: summary({name: result.threshold[metric] for name, result in results.items()}, confidence)
        for metric in metrics_of("operating_point")
    }
    return Across(
        protocol=PROTOCOL,
        question=settings.question,
        confidence=confidence,
        reference=reference,
        data_sets={name: facts_of(result, settings.data_sets[name].model_dump()) for name, result in results.items()},
        techniques=techniques,
        ranks=ranks,
        threshold=threshold,
        rarity=rarity_of(results, techniques),
        published=[figure.model_dump() for figure in published],
        missing=dict(missing),
    )
