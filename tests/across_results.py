"""Made-up results of the benchmark across data sets, whose truth is planted."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ballast.evaluation.comparison import verdict
from stages.store.across_data_sets import FAMILIES, METRICS, PROTOCOL, Across, DataSet, DataSetResult, DataSets, Published
from stages.study.across import across, metrics_of

# Name, classes, share of the rarest class, training messages.
SETS = {
    "sms_spam": (2, 0.126, 3600),
    "hate_speech": (3, 0.058, 6000),
    "trec": (6, 0.016, 3800),
    "banking77": (77, 0.0035, 6000),
    "clinc_out_of_scope": (2, 0.0094, 6000),
    "clinc_intents": (150, 0.0024, 6000),
}
ENTRIES = (
    "baseline", "bias_init", "class_weight", "downsample", "downsample_upweight", "upsample", "focal", "logit_adjust", "ldam",
    "lade", "augment", "effective_number", "balanced_sampler", "smote", "tfidf", "tfidf_class_weight", "majority",
)  # fmt: skip
# True difference from the baseline of an entry on a data set: (entry, data set) -> difference.
Effect = Callable[[str, str], float]
ERROR = 0.01


def estimate(value: float) -> dict[str, float]:
    return {"value": value, "low": value - 2 * ERROR, "high": value + 2 * ERROR}


def difference(value: float, *, higher_is_better: bool = True) -> dict[str, Any]:
    shown = abs(value) > 2 * ERROR
    word = verdict(value, 0.01 if shown else 0.9, 1.0, 0.95, higher_is_better=higher_is_better)
    interval = {"low": value - 2 * ERROR, "high": value + 2 * ERROR}
    return {"difference": value, **interval, "p_adjusted": 0.01 if shown else 0.9, "margin": 0.02, "verdict": word}


def entry_of(technique: str, changes: Mapping[str, float], gain: float, *, reference: bool) -> dict[str, Any]:
    """An entry whose metrics differ from the baseline's by `changes` (by family), where a threshold alone gains `gain`."""

    def signed(metric: str, family: str) -> float:
        return -changes[family] if metric == "log_loss" else changes[family]

    base = {"corrected": 0.6, "operating_point": 0.6 + gain}
    values = {family: {m: estimate(base[family] + signed(m, family)) for m in metrics_of(family)} for family in FAMILIES}
    values["raw"] = {m: estimate(base["corrected"]) for m in METRICS}
    differences = {
        family: {m: difference(signed(m, family), higher_is_better=m != "log_loss") for m in metrics_of(family)}
        for family in FAMILIES
    }
    over = {m: difference(changes["corrected"] - gain) for m in metrics_of("operating_point")}
    return {
        "technique": technique,
        "values": values,
        "differences": None if reference else differences,
        "over_threshold": None if reference else over,
    }


def result_of(
    name: str, entries: Sequence[str], corrected: Effect, decided: Effect, gain: float, rng: np.random.Generator
) -> DataSetResult:
    """The result of a data set: true differences with a little noise."""
    classes, share, messages = SETS[name]
    made = {}
    for entry in entries:
        noise = 0.0 if entry == "baseline" else float(rng.normal(0, ERROR / 4))
        changes = {"corrected": corrected(entry, name) + noise, "operating_point": decided(entry, name) + noise}
        made[entry] = entry_of(entry, changes, gain, reference=entry == "baseline")
    return DataSetResult(
        protocol=PROTOCOL,
        settings="0" * 64,
        source="1" * 64,
        data="2" * 64,
        code="3" * 64,
        classes=classes,
        rarest="rare one",
        tail=["rare one"],
        share=share,
        prior=share,
        train={"messages": messages, "rare": round(share * messages)},
        test={"messages": 1500, "rare": max(3, round(share * 1500))},
        split="grouped",
        crossing=0,
        encoder={"learning_rate": 5e-4, "frozen_layers": 5},
        seeds=[0, 1, 2],
        confidence=0.95,
        margin=0.02,
        reference="baseline",
        entries=made,
        threshold={metric: difference(gain) for metric in METRICS if metric not in ("rare_pr_auc", "log_loss")},
        chosen={"technique": "baseline", "metric": "macro_f1", "against": {"tfidf": difference(0.05)}},
    )


def nothing(entry: str, data_set: str) -> float:
    return 0.0


def planted(
    corrected: Effect = nothing,
    decided: Effect = nothing,
    *,
    gain: float = 0.04,
    names: Sequence[str] = tuple(SETS),
    entries: Sequence[str] = ENTRIES,
    published: Sequence[Published] = (),
    missing: Mapping[str, str] | None = None,
) -> Across:
    """The result across data sets of planted differences, for the most probable class and at the operating point."""
    rng = np.random.default_rng(0)
    results = {name: result_of(name, entries, corrected, decided, gain, rng) for name in names}
    about = {name: DataSet(tests="a made-up data set", address="https://example.org/data", licence="MIT") for name in names}
    settings = DataSets(question="Which technique helps when?", common={}, data_sets=about)
    return across(settings, results, published, missing or {})
